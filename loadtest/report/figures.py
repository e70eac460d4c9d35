"""Readable numbers: separated thousands, three significant digits, a suitable unit."""

import datetime as dt
from collections.abc import Sequence

NOTHING = "-"
"""The text where nothing was measured."""

MIB, GIB = 2.0**20, 2.0**30

UNITS = {"ms": "ms", "seconds": "s", "bytes": "bytes", "cores": "cores", "us_per_event": "µs an event"}
"""The end of a metric's or column's name -> the unit of its values."""


def number(value: float | None) -> str:
    """Return a number: `1,234,567`, `12.3`, `0.012`."""
    if value is None:
        return NOTHING
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.3g}" if size >= 0.001 else f"{value:.1g}"


def unit_of(name: str) -> str:
    """Return the unit that a name ends with (`freshness_ms.p(99)`, `worker_memory_bytes.max`), or ""."""
    stem = name.partition(".")[0]
    return next((unit for end, unit in UNITS.items() if stem.endswith(f"_{end}")), "")


def metric(name: str, value: float | None) -> str:
    """Return a metric's value with its unit."""
    if value is None:
        return NOTHING
    unit = unit_of(name)
    if unit == "bytes":
        return size(value)
    return f"{number(value)} {unit}" if unit else number(value)


def size(value: float) -> str:
    """Return a number of bytes: `512 MiB`, `23.5 GiB`."""
    return f"{number(value / GIB)} GiB" if value >= 10 * GIB else f"{number(value / MIB)} MiB"


def latency(ms: float | None) -> str:
    """Return a time in ms, or in seconds from one on."""
    if ms is None:
        return NOTHING
    return f"{number(ms / 1_000)} s" if ms >= 1_000 else f"{number(ms)} ms"


def clock(seconds: float) -> str:
    """Return a time since the load began: `45 s`, `2:05`, `1:02:05`."""
    if abs(seconds) < 60:
        return f"{seconds:g} s"
    sign, whole = "-" if seconds < 0 else "", round(abs(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{sign}{hours}:{minutes:02}:{rest:02}" if hours else f"{sign}{minutes}:{rest:02}"


def moment(ms: int | None) -> str:
    """Return a time of day, UTC."""
    if ms is None:
        return NOTHING
    return dt.datetime.fromtimestamp(ms / 1_000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: object) -> str:
    """Return a setting's value as text: numbers with separated thousands, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return NOTHING
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value)) or NOTHING
    return str(value) or NOTHING
