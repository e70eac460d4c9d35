"""How published rule sets and alerts are printed."""

import datetime as dt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adledger.sinks.rules import AlertRow, PublishedRules


def time_text(microseconds: int) -> str:
    """Return a time (UTC) to the second."""
    return dt.datetime.fromtimestamp(microseconds // 1_000_000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def published_json(row: "PublishedRules") -> dict[str, Any]:
    """Return a published set for `--json`, without its text."""
    when = time_text(row.published_at)
    return {
        "version": f"{row.version:016x}",
        "published_at": when,
        "author": row.author,
        "reason": row.reason,
    }


def alert_json(alert: "AlertRow") -> dict[str, Any]:
    """Return an alert for `--json`."""
    return {
        "raised_at": time_text(alert.raised_at), "kind": str(alert.kind), "rule": alert.rule,
        "rules_version": f"{alert.rules_version:016x}", "lane": alert.lane, "batch_no": alert.batch_no,
        "clock_ms": alert.clock, "events": alert.events, "invalidated_nanos": str(alert.invalidated_nanos),
        "money_nanos": str(alert.money_nanos), "share_min_ppm": alert.share_min_ppm,
        "share_max_ppm": alert.share_max_ppm, "author": alert.author, "what": alert.what,
    }  # fmt: skip


def alert_line(alert: "AlertRow") -> tuple[object, ...]:
    """Return an alert as a row: raised, kind, rule, lane, batch, what."""
    breach = alert.money_nanos > 0
    share = f"{alert.invalidated_nanos / alert.money_nanos:.2%} of the money" if breach else ""
    bounds = f" ({alert.share_min_ppm / 1e6:.2%} to {alert.share_max_ppm / 1e6:.2%})" if breach else ""
    what = f"{share}{bounds}" if breach else f"{alert.author}: {alert.what}".removeprefix(": ")
    lane, batch = (alert.lane, alert.batch_no) if breach else ("-", "-")
    return (time_text(alert.raised_at), str(alert.kind), alert.rule or "-", str(lane), str(batch), what)
