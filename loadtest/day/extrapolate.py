"""From samples to the whole day: coefficients, whether they agree over the scales, and the sums they lead to. Pure.

Each figure has its formula as text, with the numbers it was computed from, so that a reader can check it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adledger.loadtest.day.measure import MeasuredSample
from adledger.loadtest.day.plan import DAY_SECONDS, Whole
from adledger.loadtest.day.probe import Probe
from adledger.pipeline.stages.dedupe import LOAD_MAX

SLOT_BYTES = 20
"""A slot of the dedupe table: a key, fingerprint and clock, and the publisher."""
FRESH_LOAD = LOAD_MAX * 0.75
"""A table that is rebuilt is the next power of two at which it is filled no more than this."""
GB = 10**9


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A quantity per event, at each scale (smallest first), and how far those may differ from the largest's.

    `holds` is None where there are fewer than three scales to compare.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    tolerance: float

    @property
    def value(self) -> float:
        """What the extrapolation uses: the largest sample's."""
        return self.values[-1]

    @property
    def deviation(self) -> float:
        """The largest relative difference of the others from it."""
        return (
            max((abs(v - self.value) / self.value for v in self.values), default=0.0) if self.value else 0.0
        )

    @property
    def holds(self) -> bool | None:
        """Whether all scales agree, within the tolerance."""
        return self.deviation <= self.tolerance if len(self.values) >= 3 else None


@dataclass(frozen=True, slots=True)
class Figure:
    """What the whole day takes: a value, its unit, and its formula."""

    name: str
    value: float
    unit: str
    formula: str


def coefficients(samples: Sequence[MeasuredSample]) -> dict[str, Coefficient]:
    """Return the coefficients of the samples, smallest first. Tolerances: CPU is a busy machine's, rows are counted."""

    def of(name: str, unit: str, tolerance: float, values: Sequence[float]) -> Coefficient:
        return Coefficient(
            name, unit, tuple(v / s.events for v, s in zip(values, samples, strict=True)), tolerance
        )

    found = [
        of("worker CPU", "us/event", 0.35, [s.worker_cpu_seconds * 1e6 for s in samples]),
        of("ClickHouse CPU", "us/event", 0.35, [s.server_cpu_seconds * 1e6 for s in samples]),
        of("dedupe ids", "ids/event", 0.02, [s.dedupe_entries for s in samples]),
        of("batches", "batches/event", 0.05, [s.batches for s in samples]),
        of("inserts", "inserts/event", 0.10, [s.inserts for s in samples]),
    ]
    for table in samples[-1].rows:
        tolerance = 0.25 if table == "dead_letters" else 0.05  # few, and so by chance
        found.append(of(f"{table} rows", "rows/event", tolerance, [s.rows.get(table, 0) for s in samples]))
    for table in ("events", "rollup_minute"):  # the others are too small for their parts' overhead
        found.append(of(f"{table} bytes", "bytes/event", 0.10, [s.bytes.get(table, 0) for s in samples]))  # noqa: PERF401
    return {c.name: c for c in found}


def lane_ids(whole: Whole, known: dict[str, Coefficient]) -> int:
    """Return how many ids a lane of the whole day holds."""
    return math.ceil(whole.events * known["dedupe ids"].value / whole.lanes)


def whole_day(whole: Whole, known: dict[str, Coefficient], looks: Probe) -> list[Figure]:
    """Return what the whole day takes; `looks` is the extra cost of its larger dedupe tables."""
    n = whole.events
    worker, server = known["worker CPU"].value, known["ClickHouse CPU"].value
    larger = f"({worker:.2f} + {looks.extra_us:.2f}: dedupe takes {looks.whole_us:.2f} us among {looks.whole_ids:,} ids, {looks.sample_us:.2f} among {looks.sample_ids:,})"
    return [
        *_cores("worker", whole, worker + looks.extra_us, larger),
        *_cores("ClickHouse", whole, server, f"{server:.2f}"),
        _dedupe(whole, known),
        *(_total(f"{name} rows", "rows", n, known) for name in _tables(known, "rows")),
        *(_total(f"{name} bytes", "GB", n, known, per=GB) for name in _tables(known, "bytes")),
        _inserts(whole, known),
    ]


def dedupe_bytes(ids: int) -> int:
    """Return the bytes of a lane's dedupe table that holds `live` ids, after days of running."""
    slots = 4_096
    while ids > FRESH_LOAD * slots:
        slots *= 2
    return SLOT_BYTES * slots


def _cores(who: str, whole: Whole, per_event_us: float, shown: str) -> list[Figure]:
    return [
        Figure(
            f"{who} cores, {when}", per_event_us * rate / 1e6, "cores", f"{rate:,.0f} events/s x {shown} us"
        )
        for when, rate in (("mean", whole.per_second), ("peak", float(whole.peak_per_second)))
    ]


def _dedupe(whole: Whole, known: dict[str, Coefficient]) -> Figure:
    ids, ids_per_event = lane_ids(whole, known), known["dedupe ids"].value
    size = dedupe_bytes(ids)
    return Figure(
        "dedupe memory, all workers", whole.lanes * size / GB, "GB",
        f"{whole.lanes} lanes x {size // SLOT_BYTES:,} slots x {SLOT_BYTES} bytes: the first power of two that {ids:,} ids "
        f"({whole.events:,} x {ids_per_event:.3f} / {whole.lanes}) fill to {FRESH_LOAD:.2f} at most",
    )  # fmt: skip


def _total(name: str, unit: str, events: int, known: dict[str, Coefficient], per: float = 1) -> Figure:
    each = known[name].value
    shown = name.removesuffix(" bytes") + " on disk" if per > 1 else name
    return Figure(shown, events * each / per, unit, f"{events:,} x {each:.4g} an event")


def _inserts(whole: Whole, known: dict[str, Coefficient]) -> Figure:
    each, batches = known["inserts"].value, known["batches"].value
    tables = each / batches if batches else 0.0
    by_plan = whole.lanes * tables / whole.batch_seconds
    return Figure(
        "inserts", whole.events * each / DAY_SECONDS, "inserts/s",
        f"{whole.events:,} x {each:.4g} an event / {DAY_SECONDS:,} s; by plan {whole.lanes} lanes x {tables:.2f} tables / "
        f"{whole.batch_seconds:g} s = {by_plan:.1f}",
    )  # fmt: skip


def _tables(known: dict[str, Coefficient], what: str) -> list[str]:
    return [name.removesuffix(f" {what}") for name in known if name.endswith(f" {what}")]
