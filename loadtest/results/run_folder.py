"""The run folder: what a load test leaves behind, and what reports, comparisons and `verify` read.

    <runs>/<run id>/
      run.json        Run: what was run, where, with what settings, by which command; written at start, and at the end
      summary.json    Summary: verdict, metrics, thresholds, faults, verification; written at the end, and by `verify`
      seconds.csv     one line a second, columns as in results.names.SECONDS (an empty cell: unknown)
      freshness.hlog  HdrHistogram log: an interval histogram a second, microseconds, tags `due` and `log_time`
      adledger.toml   the workers' settings
      *.log           logs of workers and senders

The ground truth is not kept: it follows from run.json's `model` and `sent_until_ms` (adledger.loadtest.runner.check.Sent).

Readers depend on this module only. Fields are added, never renamed: `FORMAT` counts up when one changes its meaning.
All times are UTC, in ms since the epoch; durations carry their unit in the name.
"""

import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from adledger.loadtest.lab.names import Names
from adledger.loadtest.results.names import SECONDS
from adledger.pipeline.errors import UsageError

FORMAT = 1
RUN, SUMMARY, SECONDS_FILE, FRESHNESS = "run.json", "summary.json", "seconds.csv", "freshness.hlog"

Second = Mapping[str, float | None]
"""A line of seconds.csv, by column."""


class RunVerdict(StrEnum):
    """How a run ended, and what its exit code says."""

    HELD = "held"
    CROSSED = "crossed"
    INVALID = "invalid"
    UNVERIFIED = "unverified"
    INTERRUPTED = "interrupted"

    @property
    def exit_code(self) -> int:
        """The command's: 0, 99 (k6's), 97 the generator fell behind, 98 not verified, 130 interrupted."""
        return {"held": 0, "crossed": 99, "invalid": 97, "unverified": 98, "interrupted": 130}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was run. `profile` and `model` hold every key that the profile and the traffic had, defaults too.

    `source` and `clickhouse` are addresses without passwords. `environment` names machine and versions, each a text
    or a number. `rate_per_second` is 0 for `--rate max`. `own_servers`: the run started broker and ClickHouse, whose
    data is in the folder. `sent_until_ms`: for each partition, the planned time up to which everything was sent, and
    nothing later: with `model` it determines each record that was sent. `ended_ms` and `load_ended_ms` are None while it runs, or where it was cut off.
    """

    id: str
    profile_name: str
    profile: Mapping[str, Any]
    model: Mapping[str, Any]
    seed: int
    executor: str
    rate_per_second: float
    duration_seconds: float
    warm_up_seconds: float
    command: tuple[str, ...]
    target: str
    source: str
    clickhouse: str
    names: Names
    workers: int
    senders: int
    own_servers: bool
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    started_ms: int
    load_started_ms: int | None = None
    load_ended_ms: int | None = None
    ended_ms: int | None = None
    sent_until_ms: tuple[int, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdResult:
    """One threshold: `expression` as in the profile (`freshness_ms: p(99)<5000`); `value` None: nothing to measure.

    `aborted`: it was crossed for long enough to end the run (abort_on_fail).
    """

    metric: str
    expression: str
    value: float | None
    held: bool
    abort_on_fail: bool = False
    aborted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultResult:
    """One fault: when it was due and done, and what was seen that shows it took effect."""

    kind: str
    at_seconds: float
    duration_seconds: float
    started_second: float | None
    ended_second: float | None
    took_effect: bool
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the comparison with the ground truth found. `why_not` is why it did not run, "" where it did.

    `wrong` are counts and publisher-minute rows that differ, in words; `explanations` the events behind them.
    """

    ran: bool
    equal: bool
    why_not: str = ""
    records_expected: int = 0
    records_found: int = 0
    rows_compared: int = 0
    rows_wrong: int = 0
    counts_wrong: int = 0
    wrong: tuple[str, ...] = ()
    explanations: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of `--find-max`: a separate run, with its own folder, at this rate."""

    run_id: str
    rate_per_second: float
    held: bool
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How it went. `metrics` are named as thresholds name them (`freshness_ms.p(99)`, `rate.mean` ...; see results.names.METRICS).

    `why` are the reasons behind a verdict other than held. `steps` are those of `--find-max`, whose answer is
    `rate_max_per_second` (None: no search, or no rate held).
    """

    run_id: str
    verdict: RunVerdict
    why: tuple[str, ...]
    metrics: Mapping[str, float | None]
    thresholds: tuple[ThresholdResult, ...]
    faults: tuple[FaultResult, ...]
    verification: Verification
    steps: tuple[Step, ...] = ()
    rate_max_per_second: float | None = None
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder on the disk."""

    path: Path

    @classmethod
    def create(cls, runs: Path, run_id: str) -> Self:
        """Make the folder of a new run. Raises UsageError where it can't be made, or there is one."""
        path = runs / run_id
        try:
            path.mkdir(parents=True, exist_ok=False)
        except OSError as error:
            raise UsageError(
                f"{path} can't be made: {error.strerror}", remedy="name another folder: --runs DIR"
            ) from None
        return cls(path)

    @classmethod
    def find(cls, runs: Path, name: str) -> Self:
        """Return the folder of a run, by its id, a path, or `last`. Raises UsageError where there is none."""
        if name == "last":
            found = sorted((p.parent for p in runs.glob(f"*/{RUN}")), key=lambda p: p.name)
            if found:
                return cls(found[-1])
        for path in (runs / name, Path(name)):
            if (path / RUN).is_file():
                return cls(path)
        raise UsageError(
            f"there is no run {name} in {runs}", remedy="adledger loadtest list --runs DIR names the runs"
        )

    def write_run(self, run: Run) -> None:
        """Write run.json."""
        self._write_json(RUN, run)

    def write_summary(self, summary: RunSummary) -> None:
        """Write summary.json."""
        self._write_json(SUMMARY, summary)

    def run(self) -> Run:
        """Read run.json. Raises UsageError: not there, damaged, or of a later format."""
        values = self._read_json(RUN)
        values["names"] = _made(Names, values["names"])
        return _made(Run, values)

    def summary(self) -> RunSummary:
        """Read summary.json. Raises UsageError: not there (the run did not end), damaged, or of a later format."""
        values = self._read_json(SUMMARY)
        values["verdict"] = RunVerdict(values["verdict"])
        values["verification"] = _made(Verification, values["verification"])
        for name, of in (("thresholds", ThresholdResult), ("faults", FaultResult), ("steps", Step)):
            values[name] = tuple(_made(of, value) for value in values[name])
        return _made(RunSummary, values)

    @property
    def ended(self) -> bool:
        """Whether there is a summary."""
        return (self.path / SUMMARY).is_file()

    def write_seconds(self, seconds: Sequence[Second]) -> None:
        """Write seconds.csv."""
        with (self.path / SECONDS_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(SECONDS)
            writer.writerows([_cell(second.get(name)) for name in SECONDS] for second in seconds)

    def seconds(self) -> list[dict[str, float | None]]:
        """Read seconds.csv; empty where there is none. Columns that this release does not know are left out."""
        path = self.path / SECONDS_FILE
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: float(text) if (text := line.get(name)) else None for name in SECONDS}
                for line in csv.DictReader(file)
            ]

    def _write_json(self, name: str, value: Any) -> None:
        text = json.dumps(dataclasses.asdict(value), indent=1, ensure_ascii=False)
        new = self.path / f"{name}.new"
        new.write_text(text + "\n", "utf-8")
        new.replace(self.path / name)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"{path} is not there", remedy="the run was cut off, or this is no run's folder"
            ) from None
        except ValueError as error:
            raise UsageError(f"{path} is damaged: {error}", remedy="repeat the run") from None
        if values.get("format", 0) > FORMAT:
            raise UsageError(
                f"{path} is of format {values['format']}, later than {FORMAT}", remedy="use a newer adledger"
            )
        return values


def runs_in(runs: Path) -> Iterator[RunFolder]:
    """Yield the folders of all runs, the oldest first."""
    for path in sorted(runs.glob(f"*/{RUN}")):
        yield RunFolder(path.parent)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.15g}"


def _made(of: type[Any], values: Mapping[str, Any]) -> Any:
    """Return a dataclass from JSON: lists are tuples, keys of a later minor release are left out."""
    names = {f.name for f in dataclasses.fields(of)}
    return of(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in names})
