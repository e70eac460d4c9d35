"""The results of a chaos run: as values, as JSON, and as a Markdown page."""

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

REPORT_JSON, REPORT_PAGE = "report.json", "report.md"


class ChaosVerdict(StrEnum):
    """How a run ended."""

    PASSED = "passed"
    FAILED = "failed"
    INVALID = "invalid"
    INTERRUPTED = "interrupted"

    @property
    def exit_code(self) -> int:
        """The command's: 0 passed, 1 failed, 97 a fault took no effect, 130 interrupted."""
        return {"passed": 0, "failed": 1, "invalid": 97, "interrupted": 130}[self.value]


@dataclass(frozen=True, slots=True)
class FaultDone:
    """One fault. Seconds are since the start of the traffic.

    `recovery_seconds`: from the fault's end until everything sent by then was in the ledger (None: not in
    time). `replayed`: records of batches that were in doubt, and so computed or read back a second time.
    """

    kind: str
    began_second: float
    ended_second: float
    took_effect: bool
    held: bool
    seen: str
    recovery_seconds: float | None = None
    batches_in_doubt: int = 0
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class ControlDone:
    """A fault without its protection. `differs`: how tables or lanes were wrong then; "" where nothing was."""

    fault: str
    without: str
    differs: str
    seconds: float
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class ChaosReport:
    """A run. `wrong` are the tables' differences from the ground truth, `died` the workers that died without being killed."""

    seed: int
    started: str
    seconds: float
    workers: int
    lanes: int
    records: int
    kills: int
    faults: tuple[FaultDone, ...]
    controls: tuple[ControlDone, ...]
    wrong: tuple[str, ...]
    died: tuple[str, ...]
    compared: bool = False
    stopped: str = ""
    interrupted: bool = False
    cpu_seconds: float = 0.0
    memory_peak_bytes: int = 0
    longest_outage_seconds: float = 0.0

    @property
    def verdict(self) -> ChaosVerdict:
        """The outcome: a failure outranks an effect that was not seen."""
        if self.interrupted:
            return ChaosVerdict.INTERRUPTED
        if self.wrong or self.died or not all(f.held for f in self.faults):
            return ChaosVerdict.FAILED
        valid = all(f.took_effect for f in self.faults) and all(c.differs for c in self.controls)
        return ChaosVerdict.PASSED if valid and self.compared and not self.stopped else ChaosVerdict.INVALID

    def as_json(self) -> dict[str, Any]:
        """Return everything."""
        return {"verdict": self.verdict.value, **dataclasses.asdict(self)}

    def write(self, folder: Path) -> None:
        """Write report.json and report.md."""
        (folder / REPORT_JSON).write_text(json.dumps(self.as_json(), indent=1) + "\n", "utf-8")
        (folder / REPORT_PAGE).write_text("\n".join(self.page()) + "\n", "utf-8")

    def page(self) -> list[str]:
        """Return the page's lines."""
        return [
            f"# Chaos, seed {self.seed}: {self.verdict.value}",
            "",
            self._in_short(),
            *([f"Ended early: {self.stopped}"] if self.stopped else []),
            "",
            "| second | fault | took effect | held | caught up after | in doubt | replayed | seen |",
            "| ---: | --- | --- | --- | ---: | ---: | ---: | --- |",
            *(
                f"| {f.began_second:.1f} | {f.kind} | {_yes(f.took_effect)} | {_yes(f.held)} | "
                + ("-" if f.recovery_seconds is None else f"{f.recovery_seconds:.1f} s")
                + f" | {f.batches_in_doubt} | {f.replayed:,} | {f.seen} |"
                for f in self.faults
            ),
            "",
            *self._controls(),
            "## Tables compared with the ground truth",
            "",
            *self._tables(),
            *(f"A worker died: {line}" for line in self.died),
        ]

    def _tables(self) -> list[str]:
        if not self.compared:
            return ["Not compared."]
        return list(self.wrong) or ["Equal, to the nano; the ledger counted again: conserved and continuous."]

    def _in_short(self) -> str:
        what = f"{self.workers} workers, {self.lanes} lanes, {self.records:,} records; {self.kills} workers killed"
        memory = f"a worker's largest memory {self.memory_peak_bytes / 2**20:.0f} MB"
        return f"{self.started}, {self.seconds:.0f} s, {self.cpu_seconds:.0f} CPU seconds; {what}; {memory}."

    def _controls(self) -> list[str]:
        if not self.controls:
            return []
        return [
            "| control | without | what then was wrong | seconds |",
            "| --- | --- | --- | ---: |",
            *(
                f"| {c.fault} | {c.without} | {c.differs or f'NOTHING: {c.why_not}'} | {c.seconds:.1f} |"
                for c in self.controls
            ),
            "",
        ]


def _yes(holds: bool) -> str:  # noqa: FBT001 - the value to render
    return "yes" if holds else "NO"
