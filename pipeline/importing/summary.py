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
    """What an import wrote (with `dry_run`, what it would write): records in all, and by topic.

    Among them those of lines that could not be read, of lines that will be malformed, and of those that will expire;
    `problems` says of the first that can't be read where they are and why; `replay` how the pace was kept; `refused` why a
    dry run's import would write nothing.
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
        """How many were read, and will be malformed all the same."""
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
