"""How `adledger periods` shows what it found, as text and as JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from adledger.pipeline.billing.closing import NextPeriod
from adledger.pipeline.billing.closings import ClosingAttempt
from adledger.pipeline.billing.overrides import iso
from adledger.pipeline.billing.status import ClassSums, ExplainedClosing, PeriodsStatus
from adledger.pipeline.cli.output import err, out, out_table
from adledger.pipeline.ledger.totals import money_text
from adledger.schemas.classes import CLASS_NAMES, Class
from adledger.schemas.periods import PERIOD_MS
from adledger.schemas.wire import currency_text

__all__ = ["iso"]


def status_json(found: PeriodsStatus) -> dict[str, Any]:
    """Return the object of `periods status --json`."""
    due = found.due
    return {
        "closed_until": _time(found.closed_end),
        "books_begin": _time(found.books_begin),
        "next_period": None if due is None else _next_json(due),
        "lanes": found.lanes,
        "held_by": [
            {"lane": w.lane, "watermark": _time(w.clock), "last_batch_written_at": _time(w.written_at)}
            for w in found.held
        ],
        "periods_waiting": found.periods_waiting,
        "money_waiting": {currency_text(c): _exact(nanos) for c, nanos in found.waiting.items()},
    }


def print_status(found: PeriodsStatus) -> None:
    """Print what holds the next period, or that nothing does."""
    if found.closed_end is None:
        out("no period is closed")
    else:
        out(f"closed until {iso(found.closed_end)}")
    if found.due is None:
        out("nothing to close: no lane has an event in time")
        return
    plan = found.due.plan
    out(f"next: {iso(plan.period.start)}, which closes at the watermark {_time(plan.period.closes_at)}")
    if found.periods_waiting:
        money = (
            ", ".join(f"{money_text(n)} {currency_text(c)}" for c, n in found.waiting.items()) or "no money"
        )
        out(f"waiting: {found.periods_waiting:,} periods that some lane is past, {money} billable")
    if found.held:
        out(f"held open by {len(found.held)} of {found.lanes} lanes:")
        out_table(
            ("lane", "watermark", "last batch written"),
            [(str(w.lane), _time(w.clock) or "no batch", _time(w.written_at) or "-") for w in found.held],
        )
    elif plan.too_early:
        out("it is not over by ClickHouse's clock")
    else:
        err("every lane is past its close: `adledger periods close` closes it")


def closed_json(closed: Sequence[ClosingAttempt], held: NextPeriod | None) -> dict[str, Any]:
    """Return the object of `periods close --json`."""
    return {
        "closed": [
            {
                "charge_period_start": _time(a.plan.period.start),
                "charge_period_end": _time(a.plan.period.end),
                "run_id": str(a.run_id),
                "rows": a.publishers.rows,
                "adjustments": a.adjustments.rows,
                "final": _sums_json(a.money),
            }
            for a in closed
        ],
        "next_period": None if held is None else _next_json(held),
        "held_by": []
        if held is None
        else [{"lane": h.lane, "watermark": _time(h.clock)} for h in held.plan.held_by],
    }


def print_closed(attempt: ClosingAttempt) -> None:
    """Print one closing as it is done."""
    billable = ", ".join(
        f"{money_text(nanos)} {currency_text(currency)}"
        for code, currency, _, nanos in attempt.money
        if code == Class.BILLABLE
    )
    booked = f", {attempt.adjustments.rows:,} adjustments booked" if attempt.adjustments.rows else ""
    out(f"{iso(attempt.plan.period.start)}  closed: {billable or 'nothing'} billable{booked}")


def print_held(closed: Sequence[ClosingAttempt], held: NextPeriod | None) -> None:
    """Print how many periods were closed, and what holds the next one open."""
    err(f"{len(closed):,} periods closed")
    if held is None:
        return
    start = iso(held.plan.period.start)
    if held.plan.held_by:
        lanes = ", ".join(str(h.lane) for h in held.plan.held_by)
        err(f"{start} is held open by {len(held.plan.held_by)} of {held.plan.partitions} lanes: {lanes}")
    else:
        err(f"{start} is not over by ClickHouse's clock")


def explained_json(start: int, found: ExplainedClosing, topics: Sequence[str]) -> dict[str, Any]:
    """Return the object of `periods explain --json`."""
    return {
        "charge_period_start": _time(start),
        "charge_period_end": _time(start + PERIOD_MS),
        "run_id": str(found.run_id),
        "closed_at": _time(found.closed_at),
        "author": found.author,
        "release": found.release,
        "attempts": found.attempts,
        "attempts_alike": found.alike,
        "intact": found.intact,
        "final": _sums_json(found.money),
        "corrections": _sums_json(found.corrections),
        "booked_in_it": _sums_json(found.booked),
        "judge_versions": [str(v) for v in found.judge_versions],
        "lanes": [
            {
                "lane": of.lane,
                "included_batch": of.included,
                "booked_batch": of.booked,
                "watermark": _time(of.clock),
                "left_out_by": of.left_out or None,
                "offsets": _offsets(of.ends, topics),
            }
            for of in found.lanes
        ],
    }


def print_explained(start: int, found: ExplainedClosing, topics: Sequence[str]) -> None:
    """Print a closed period."""
    out(f"{iso(start)} to {iso(start + PERIOD_MS)}: final, closed {_time(found.closed_at)} by {found.author}")
    rows = [
        (name, CLASS_NAMES[Class(code)], records, money_text(nanos), currency_text(currency))
        for name, of in (
            ("final", found.money),
            ("correction", found.corrections),
            ("booked in it", found.booked),
        )
        for code, currency, records, nanos in of
    ]
    out_table(("", "class", "records", "money", "currency"), rows)
    out_table(
        ("lane", "included up to batch", "watermark", "offsets", "left out by"),
        [
            (
                str(of.lane), of.included, _time(of.clock) if of.included else "-",
                ", ".join(f"{t} {o:,}" for t, o in _offsets(of.ends, topics).items()), of.left_out,
            )
            for of in found.lanes
        ],
    )  # fmt: skip
    out(f"rule evaluators: {', '.join(map(str, found.judge_versions)) or 'none'}")
    if not found.intact:
        err("wrong: publisher_periods or adjustments don't hold the rows that the closing wrote")
    if not found.alike:
        err(f"wrong: {found.attempts} attempts closed it with different sums")


def _next_json(due: NextPeriod) -> dict[str, Any]:
    period = due.plan.period
    return {
        "charge_period_start": _time(period.start),
        "closes_at": _time(period.closes_at),
        "may_close": due.plan.may_close,
    }


def _sums_json(of: ClassSums) -> list[dict[str, Any]]:
    return [
        {
            "class": CLASS_NAMES[Class(code)],
            "currency": currency_text(currency),
            "records": records,
            "money": _exact(nanos),
        }
        for code, currency, records, nanos in of
    ]


def _exact(nanos: int) -> str:
    """Return nanos as a decimal in text: sums may exceed the numbers that JSON readers keep exact."""
    return money_text(nanos).replace(",", "")


def _offsets(ends: Mapping[int, int], topics: Sequence[str]) -> dict[str, int]:
    return {topics[t] if t < len(topics) else str(t): offset for t, offset in sorted(ends.items())}


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    text = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").replace(".000Z", "Z")
