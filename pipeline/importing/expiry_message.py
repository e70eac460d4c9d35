"""The message of an import that would lose lines by expiry: how many, behind which line, and the options."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

from adledger.pipeline.importing.examining import Examination
from adledger.pipeline.importing.expiring import Example, Expiring, LinePosition

HOUR_MS = 3_600_000
LATENESS_SETTING, WINDOW_SETTING = "allowed_lateness_hours", "dedupe_window_hours"
LATENESS_HOURS_MAX = 168
"""The maximum of both settings."""
CAUSES_SHOWN = 3


def expiry(
    examined: Examination, in_log: int, named: Sequence[Path], *, lateness_ms: int, brokers_stamp: bool
) -> str:
    """Return what would expire and why; `in_log` of these lines are in the log already."""
    expiring, hours = examined.expiring, lateness_ms / HOUR_MS
    behind = "the present, which brokers stamp them with" if brokers_stamp else "their lane's watermark"
    text = (
        f"{expiring.count:,} of {examined.records:,} lines would expire, unbilled: their times are more than {hours:g} h "
        f"behind {behind}"
    )
    shown = expiring.causes.most_common(CAUSES_SHOWN)
    for cause, count in shown if not brokers_stamp else ():
        text += f"\n  {count:,} {'line is' if count == 1 else 'lines are'} more than {hours:g} h behind {_position(cause, named)}"
        text += "".join(f"\n    {_example(e, named)}" for e in expiring.examples if e.behind == cause)
    if (rest := expiring.count - sum(count for _, count in shown)) and not brokers_stamp:
        text += f"\n  {rest:,} are behind other lines"
    if in_log:
        text += f"\n  {in_log:,} of them are in the log already, and lose nothing; {expiring.count - in_log:,} are not"
    return text


def ways_out(expiring: Expiring, *, by_time: bool, brokers_stamp: bool, window_hours: int) -> str:
    """Return the options that help, each with its effect."""
    ways = []
    hours = ceil(expiring.lag_ms_max / HOUR_MS)
    if brokers_stamp:
        ways.append(
            "separate topics, created and read with --set log_time=record, keep the times: add --set topics=NAME --set log_time=record"
        )
        ways.append("--speed N --as-of-now replays them as new events")
    elif expiring.cause_ms_min is not None:
        if not by_time:
            ways.append("if all times are right: --sort appends the lines in the order of their times")
        latest = utc(expiring.cause_ms_min - 1_000)
        ways.append(
            f"if the later times are wrong: --not-after {latest} makes lines with later times dead letters"
        )
    if hours <= LATENESS_HOURS_MAX and not brokers_stamp:
        window = max(hours, window_hours)
        ways.append(
            f"--set {WINDOW_SETTING}={window} --set {LATENESS_SETTING}={hours}, for this command and for adledger run, bills them"
        )
    ways.append("--keep-expired writes them anyway: recorded as expired, never billed")
    return "choose one:" + "".join(f"\n    {way}" for way in ways)


def _position(position: LinePosition, named: Sequence[Path]) -> str:
    return f"{named[position.file]}, line {position.line:,}" if position.line else "records in the log"


def _example(example: Example, named: Sequence[Path]) -> str:
    hours = (example.watermark - example.event_time) / HOUR_MS
    return f"{_position(example.position, named)}: {utc(example.event_time)}, {hours:,.1f} h behind {utc(example.watermark)}"


def utc(ms: int) -> str:
    """Return a time, to the second, as RFC 3339."""
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")
