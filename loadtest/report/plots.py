"""The plots of a report, from the lines of seconds.csv."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adledger.loadtest.report import figures, scales
from adledger.loadtest.report.plot import STYLES, Limit, Plot, Series, Span
from adledger.loadtest.results.names import PARTS, STAGES
from adledger.loadtest.results.run_folder import Run, RunSummary, Second

POINTS_MAX = 300
"""Points of a line; of a longer run each is several seconds."""

PART_NAMES = {"worker": "workers", "broker": "broker", "clickhouse": "ClickHouse", "generator": "generator"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A plot by its columns. `largest`: of the seconds of a point the largest value, else the mean."""

    key: str
    title: str
    unit: str
    columns: Mapping[str, str]
    largest: bool = False
    sparse: bool = False
    limits: tuple[str, ...] = ()
    note: str = ""


WANTED = (
    _Wanted(key="throughput", title="Throughput", unit="events/s",
            columns={"target_per_second": "due by the schedule", "acknowledged": "sent: in the log", "consumed": "consumed: queryable"}),
    _Wanted(key="lag", title="Lag", unit="records", largest=True, limits=("lag_records",),
            columns={"lag_records": "in the log, not yet queryable"}),
    _Wanted(key="freshness", title="Freshness", unit="ms", largest=True, sparse=True, limits=("freshness_ms",),
            columns={"freshness_p50_ms": "p50", "freshness_p90_ms": "p90", "freshness_p99_ms": "p99", "freshness_p999_ms": "p99.9",
                     "freshness_max_ms": "slowest"},
            note="From when an event was due until queries return it, by the second in which it did."),
    _Wanted(key="cpu", title="CPU by part", unit="cores",
            columns={f"{part}_cpu_cores": PART_NAMES[part] for part in PARTS}),
    _Wanted(key="memory", title="Memory by part", unit="MiB", largest=True,
            columns={f"{part}_memory_bytes": PART_NAMES[part] for part in PARTS}),
    _Wanted(key="batch-sizes", title="Batch sizes", unit="records", sparse=True,
            columns={"batch_rows_mean": "records of a batch, on average"}),
    _Wanted(key="inserts", title="Inserts and batches", unit="a second",
            columns={"inserts": "inserts into ClickHouse", "batches": "batches done", "doubts": "batches in doubt"}),
    _Wanted(key="parts", title="Parts in ClickHouse", unit="active parts", largest=True, limits=("parts",),
            columns={"parts": "of all tables of the run"}),
    _Wanted(key="stages", title="Stages of a batch", unit="ms", sparse=True,
            columns={f"stage_{stage}_ms": stage for stage in STAGES}, note="Wall time of a batch in each stage, on average."),
    _Wanted(key="schedule", title="Sends behind the schedule", unit="ms", largest=True, limits=("behind_ms", "generator_behind_ms"),
            columns={"behind_ms": "the latest send of a second"},
            note="An open loop: the schedule never waits for the system. Delays here are included in the freshness above."),
)  # fmt: skip


def plots_of(run: Run, summary: RunSummary, seconds: Sequence[Second]) -> tuple[Plot, ...]:
    """Return the plots with at least one value; none where no second was written."""
    if not seconds:
        return ()
    size = scales.bucket_size(len(seconds), POINTS_MAX)
    ends = [second["second"] or 0.0 for second in seconds]
    times = tuple(ends[min(at + size, len(ends)) - 1] for at in range(0, len(ends), size))
    spans = tuple(spans_of(run, summary, ends[0] - 1, ends[-1]))
    made = (_plot(wanted, run, seconds, times, size, spans) for wanted in WANTED)
    return tuple(plot for plot in made if plot.series)


def spans_of(run: Run, summary: RunSummary, begin: float, end: float) -> Iterator[Span]:
    """Yield what is shaded between two times: warm-up, drain, and each fault under its number in the summary."""
    if begin < 0:
        yield Span("warm-up", begin, 0.0)
    if end > run.duration_seconds:
        yield Span("drain", run.duration_seconds, end)
    for number, fault in enumerate(summary.faults, 1):
        started = fault.at_seconds if fault.started_second is None else fault.started_second
        until = (
            max(started, fault.at_seconds + fault.duration_seconds)
            if fault.ended_second is None
            else fault.ended_second
        )
        yield Span("fault", started, until, number)


def _plot(
    wanted: _Wanted,
    run: Run,
    seconds: Sequence[Second],
    times: tuple[float, ...],
    size: int,
    spans: tuple[Span, ...],
) -> Plot:
    fold = scales.largest if wanted.largest else scales.mean
    folded = {name: fold([s.get(column) for s in seconds], size) for column, name in wanted.columns.items()}
    known = {name: values for name, values in folded.items() if any(v is not None for v in values)}
    if "batches in doubt" in known and not any(known["batches in doubt"]):
        del known["batches in doubt"]
    kept, left_out = _largest_lines(known)
    factor, unit = _scale(wanted.unit, kept)
    notes = [wanted.note]
    if left_out:
        notes.append(f"The smallest are left out: {', '.join(left_out)}.")
    if size > 1:
        notes.append(
            f"A point is {size} s: {'the largest value' if wanted.largest else 'the mean'} of its seconds."
        )
    return Plot(
        key=wanted.key, title=wanted.title, unit=unit, seconds=times, point_seconds=size,
        series=tuple(
            Series(name, tuple(None if v is None else v / factor for v in values), wanted.sparse)
            for name, values in kept.items()
        ),
        load_span=(0.0, run.duration_seconds), spans=spans, limits=tuple(_limits(wanted, run, factor, unit)),
        note=" ".join(filter(None, notes)),
    )  # fmt: skip


def _largest_lines(
    series: Mapping[str, Sequence[float | None]],
) -> tuple[dict[str, Sequence[float | None]], list[str]]:
    """Return as many lines as there are styles, those with the largest totals, and the names of the others."""

    def total(name: str) -> float:
        return sum(value or 0.0 for value in series[name])

    most = set(sorted(series, key=total, reverse=True)[:STYLES])
    return {n: v for n, v in series.items() if n in most}, [n for n in series if n not in most]


def _scale(unit: str, series: Mapping[str, Sequence[float | None]]) -> tuple[float, str]:
    """Return what values are divided by, and the unit that they then have."""
    high = max((value for values in series.values() for value in values if value is not None), default=0.0)
    if unit == "ms" and high >= 10_000:
        return 1_000.0, "s"
    if unit == "MiB":
        return (figures.GIB, "GiB") if high >= 10 * figures.GIB else (figures.MIB, "MiB")
    return 1.0, unit


def _limits(wanted: _Wanted, run: Run, factor: float, unit: str) -> Iterator[Limit]:
    for threshold in run.profile.get("thresholds", ()):
        if threshold["metric"] in wanted.limits:
            bound = threshold["bound"] / factor
            name = (
                f"threshold {threshold['aggregation']}{threshold['comparison']}{figures.number(bound)} {unit}"
            )
            yield Limit(bound, name)
