"""What an import wrote, or would write."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adledger.pipeline.importing.examining import Examination, in_words
from adledger.pipeline.importing.pacing import PacedReplay
from adledger.pipeline.importing.refusing import ImportRefused
from adledger.pipeline.importing.target import TargetView
from adledger.pipeline.log.files.manifest import BOTH


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import wrote (with `dry_run`, what it would write): records in total, and by topic.

    These include unreadable lines, other records that will be malformed, and records that will expire. `problems` names the
    first unreadable lines and the reasons; `replay` is how the pace was kept; `refused` is why an import would write
    nothing (dry run).
    """

    records: int
    by_topic: dict[str, int]
    unreadable: int
    partitions: int
    problems: tuple[str, ...] = ()
    replay: PacedReplay | None = None
    examined: Examination | None = field(default=None, compare=False)
    refused: ImportRefused | None = None

    @property
    def malformed(self) -> int:
        """How many were readable, but will be malformed."""
        return 0 if self.examined is None else self.examined.malformed.total()


def would_be(
    examined: Examination, view: TargetView, named: Sequence[Path], refused: ImportRefused | None
) -> ImportSummary:
    """Return what an import would write, and how it would be refused."""
    kinds, topics = view.topology.kinds, view.topology.topics
    by_topic = {
        topic: sum(n for event_type, n in examined.by_type.items() if kind in {BOTH, event_type})
        for topic, kind in zip(topics, kinds, strict=True)
    }
    return ImportSummary(
        examined.records, by_topic, examined.unreadable, view.topology.partitions,
        tuple(in_words(p, named) for p in examined.problems), None, examined, refused,
    )  # fmt: skip
