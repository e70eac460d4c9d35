"""Which runs can be compared: the same load on the same machine, each valid and counted exactly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adledger.loadtest.compare.change import METRICS, RUNS_MIN, Change, ChangeKind, change_of
from adledger.loadtest.compare.detectable import undetectable
from adledger.loadtest.report.figures import plain
from adledger.loadtest.results.run_folder import Run, RunFolder, RunSummary, RunVerdict

MACHINE = ("cpu", "cores", "memory_bytes", "one_machine")
"""Of the environment: what makes figures incomparable."""

OF_ONE_RUN = frozenset({
    "cluster", "database", "group", "load_average_before", "rollups_topic", "source", "topics", "web_host", "web_port",
})  # fmt: skip
"""Settings and environment that differ from run to run."""

OVERRIDDEN = frozenset({"rate", "seconds", "warm_up_seconds"})
"""Of a profile's load: what the command may override; the run records the value used."""

UNDERPOWERED_FROM = 0.25
"""A comparison that can miss a change of this size says so."""

COMPARABLE = frozenset({RunVerdict.HELD, RunVerdict.CROSSED})


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run that ended."""

    run: Run
    summary: RunSummary

    @property
    def load(self) -> dict[str, Any]:
        """What the system had to do; equal wherever figures are comparable."""
        run = self.run
        return {
            "profile": run.profile_name,
            **{f"load.{key}": value for key, value in run.profile.get("load", {}).items() if key not in OVERRIDDEN},
            **{f"traffic.{key}": value for key, value in run.profile.get("traffic", {}).items()},
            "executor": run.executor, "rate": run.rate_per_second, "seconds": run.duration_seconds,
            "warm-up": run.warm_up_seconds, "workers": run.workers, "senders": run.senders,
            "faults": [(f.kind, f.at_seconds, f.duration_seconds) for f in self.summary.faults],
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A against B. `refused`: why they can't be compared, and then there are no changes.

    `undetectable`: requested effects that could have been missed.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    refused: tuple[str, ...]
    cautions: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    undetectable: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`refused`, `worse` (any metric), `underpowered` (a requested effect is undetectable), `better`, or `no change`."""
        kinds = {change.kind for change in self.changes}
        if self.refused:
            return "refused"
        if self.undetectable and ChangeKind.WORSE not in kinds:
            return "underpowered"
        return next(
            (kind.value for kind in (ChangeKind.WORSE, ChangeKind.BETTER) if kind in kinds),
            ChangeKind.SAME.value,
        )


def read(folder: RunFolder) -> MeasuredRun:
    """Read a run. Raises UsageError where it did not end."""
    return MeasuredRun(folder.run(), folder.summary())


def compare(
    a: Sequence[MeasuredRun],
    b: Sequence[MeasuredRun],
    *,
    across_machines: bool = False,
    min_effects: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare runs A with runs B, where they can be compared. `min_effects` is that of `min_detectable_effects`."""
    names_a, names_b = (tuple(m.run.id for m in side) for side in (a, b))
    refused = tuple(_refusals(a, b, across_machines=across_machines))
    if refused:
        return Comparison(a=names_a, b=names_b, refused=refused)
    changes = tuple(
        change_of(metric, *([m.summary.metrics.get(metric.name) for m in side] for side in (a, b)))
        for metric in METRICS
    )
    if all(change.kind is ChangeKind.UNKNOWN for change in changes):
        return Comparison(a=names_a, b=names_b, refused=("no metric was measured in every run",))
    return Comparison(
        a=names_a, b=names_b, refused=(), cautions=(*_underpowered(changes), *_cautions(a, b)), differs=tuple(_differences(a, b)),
        changes=changes, undetectable=tuple(undetectable(changes, min_effects or {})),
    )  # fmt: skip


def _refusals(a: Sequence[MeasuredRun], b: Sequence[MeasuredRun], *, across_machines: bool) -> Iterator[str]:
    for name, side in (("A", a), ("B", b)):
        if len(side) < RUNS_MIN:
            yield f"{len(side)} runs of {name}: telling change from noise takes at least {RUNS_MIN} of each, 5 are better"
    ids = [m.run.id for m in (*a, *b)]
    for run_id in dict.fromkeys(i for i in ids if ids.count(i) > 1):
        yield f"{run_id} is named twice"
    for measured in (*a, *b):
        if measured.summary.verdict not in COMPARABLE:
            yield f"{measured.run.id} is {measured.summary.verdict.value}: its figures do not count"
        elif measured.summary.verification.ran and not measured.summary.verification.equal:
            yield f"{measured.run.id} counted wrongly: its speed does not matter"
    for key, values in _differing([m.load for m in (*a, *b)]):
        yield f"the loads are not the same: {key} is {_either(values)}"
    machines = [{key: m.run.environment.get(key) for key in MACHINE} for m in (*a, *b)]
    for key, values in _differing(machines):
        if not across_machines:
            yield f"the machines are not the same: {key} is {_either(values)} (--across-machines compares them anyway)"


def _underpowered(changes: Sequence[Change]) -> Iterator[str]:
    scattered = [
        f"{change.metric.title} {change.detectable_from:,.0%}"
        for change in changes
        if change.kind is ChangeKind.SAME
        and change.detectable_from is not None
        and change.detectable_from > UNDERPOWERED_FROM
    ]
    if scattered:
        yield (
            f"Runs scatter so much that changes below these may be missed: {', '.join(scattered)}. "
            "Take more runs, longer ones, or a quieter machine."
        )


def _cautions(a: Sequence[MeasuredRun], b: Sequence[MeasuredRun]) -> Iterator[str]:
    times_a, times_b = ([m.run.started_ms for m in side] for side in (a, b))
    if max(times_a) < min(times_b) or max(times_b) < min(times_a):
        yield (
            "All runs of one side came before those of the other: a change of the machine itself would look the same. "
            "Alternate them: A B A B ..."
        )
    for name, side in (("A", a), ("B", b)):
        for key, values in _differing([_own(m.run) for m in side]):
            yield f"The runs of {name} differ among themselves: {key} is {_either(values)}."
    busy = [
        m.run.id
        for m in (*a, *b)
        if (m.run.environment.get("load_average_before") or 0) > (m.run.environment.get("cores") or 1) / 2
    ]
    if busy:
        yield f"The machine was busy before {len(busy)} of {len(a) + len(b)} runs."
    unverified = sum(not m.summary.verification.ran for m in (*a, *b))
    if unverified:
        yield f"Tables were not compared with the ground truth in {unverified} of {len(a) + len(b)} runs."


def _differences(a: Sequence[MeasuredRun], b: Sequence[MeasuredRun]) -> Iterator[str]:
    """Yield how A's settings and environment differ from B's: possible causes of a change."""
    for key, (of_a, of_b) in _differing([_own(a[0].run), _own(b[0].run)]):
        yield f"{key}: A {plain(of_a)}, B {plain(of_b)}"


def _own(run: Run) -> dict[str, Any]:
    values = {"seed": run.seed, **run.settings, **run.environment}
    return {key: value for key, value in values.items() if key not in OF_ONE_RUN and key not in MACHINE}


def _differing(values: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the keys at which not all are equal, with the different values in order."""
    for key in dict.fromkeys(key for value in values for key in value):
        found: list[Any] = []
        for value in values:
            if value.get(key) not in found:
                found.append(value.get(key))
        if len(found) > 1:
            yield key, found


def _either(values: Sequence[Any]) -> str:
    return " or ".join(map(plain, values))
