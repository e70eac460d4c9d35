"""Checks a file's lines against the event contract, by the decoder that a worker uses: before anything is sent."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.checking import ReasonFinder
from adledger.pipeline.importing.containers import HEAD_BYTES, foreign
from adledger.pipeline.importing.guessing import Guess, guess_layout
from adledger.pipeline.importing.lines import LineChunk, file_bytes, read_chunks
from adledger.pipeline.stages.malformed import MalformedReason, publisher_of, refusal_of
from adledger.schemas.wire import Malformed

STDIN_NAME = "stdin"
"""How stdin is named; commands that are printed for it read a pipe as well."""
FIRST_LINES = 100
"""Lines of which one must be an event, or the file may have another layout: an array, an object over several lines."""
KINDS_OF_PROBLEMS_MAX = 1_000
"""Kinds of problems that are counted one by one; a repeated key has any name, so further ones are counted together."""


class ContractProblem(NamedTuple):
    """A line that the pipeline would find malformed; `publisher_id` None: not readable."""

    line: int
    why: MalformedReason
    publisher_id: int | None


class CheckedLines(NamedTuple):
    """What some lines hold: `records` is how many are not blank. `bytes_done` of the file's `bytes_of` have been read.

    `bytes_of` is 0 for a pipe, and `bytes_done` then counts what was decompressed.

    `problems` decides line by line, so that memory is bounded: iterate it before the next lines.
    """

    records: int
    problems: Iterator[ContractProblem]
    bytes_done: int
    bytes_of: int


class ProblemKind(NamedTuple):
    """What problems are counted by; `field` is "" where none is at fault."""

    reason: int
    field: str
    allowed: str


@dataclass(slots=True)
class ProblemCounts:
    """How many lines have each kind of problem, and the first of them."""

    malformed: int = 0
    kinds: dict[ProblemKind, tuple[int, int]] = field(default_factory=dict)

    def add(self, problem: ContractProblem) -> None:
        """Count a problem."""
        self.malformed += 1
        why = problem.why
        kind = ProblemKind(why.reason, why.field, why.allowed)
        if kind not in self.kinds and len(self.kinds) >= KINDS_OF_PROBLEMS_MAX:
            kind = kind._replace(field="")
        records, first_line = self.kinds.get(kind, (0, problem.line))
        self.kinds[kind] = (records + 1, first_line)

    def ordered(self) -> list[tuple[ProblemKind, int, int]]:
        """Return (kind, records, first line), the most frequent first."""
        found = [(kind, records, line) for kind, (records, line) in self.kinds.items()]
        return sorted(found, key=lambda item: (-item[1], item[2]))


def check_lines(
    path: Path, name: str, *, topic_kind: int, clock: Callable[[], int]
) -> Iterator[CheckedLines]:
    """Yield what a file's lines hold, each line a record of a topic of `topic_kind` (1 impressions, 2 clicks, 0 both).

    `name` is the file's in errors. Log time, which an event may not be far ahead of, is `clock` in ms when the lines were
    read: a broker stamps them later. Raises UsageError if the file can't be read or is not one of lines.
    """
    finder, size, piped = ReasonFinder((topic_kind,)), file_bytes(path), 0
    for chunk in read_chunks(path):
        log_time = clock()
        numbered = [
            (number, line)
            for number, line in enumerate(chunk.lines, chunk.first_line)
            if line and not line.isspace()
        ]
        reasons = finder.malformed([line for _, line in numbered], [0] * len(numbered), log_time)
        if chunk.first_line == 1:
            _refuse_other_layouts(name, chunk, reasons)
        bad = ((*numbered[i], reason) for i, reason in reasons.items())
        problems = (
            _problem(number, line, reason, topic_kind, log_time, chunk.cut_from)
            for number, line, reason in bad
        )
        piped += sum(map(len, chunk.lines)) + len(chunk.lines)
        yield CheckedLines(len(numbered), problems, chunk.bytes_done or piped, size)


def _problem(
    number: int, line: bytes, reason: int, topic_kind: int, log_time: int, cut_from: int
) -> ContractProblem:
    """Explain a line; `cut_from` is its full length if it is truncated."""
    why = refusal_of(line, topic_kind, log_time)
    assert why is not None
    assert why.reason == reason, "the explanation is about the decoder's reason"
    if cut_from:
        why = why._replace(found=f"{cut_from:,} bytes")
    return ContractProblem(number, why, publisher_of(line))


def _refuse_other_layouts(name: str, chunk: LineChunk, reasons: dict[int, int]) -> None:
    """Refuse a file that has no line that is an event because it is no file of lines."""
    filled = [line for line in chunk.lines[:FIRST_LINES] if line.strip()]
    found = foreign(b"\n".join(chunk.lines[:FIRST_LINES])[:HEAD_BYTES])
    guessed = None if found is None else Guess(found.what, found.remedy)
    if filled and guessed is None and all(reasons.get(i, Malformed.OK) for i in range(len(filled))):
        guessed = guess_layout(filled)
    if guessed is not None:
        remedy = guessed.remedy.replace("adledger import /dev/stdin ...", "adledger check -")
        file = "" if name == STDIN_NAME else shlex.quote(name)
        raise UsageError(
            f"{name} is {guessed.what}, not one event a line",
            remedy=remedy.replace("FILE |", f"{file} |".lstrip()).replace("FILE", file or name),
        )
