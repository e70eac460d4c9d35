"""The committed offsets of one consumer group: `DIR/groups/<group>/offsets.log`, a journal of checked lines.

The first line names the generation and its member; each line after it is one commit with all its topics, so that a
commit is atomic. A join rewrites the journal with the next generation. An incomplete last line was never acknowledged
and is ignored; any other invalid line is damage.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import orjson

from adledger.pipeline.errors import CommitFenced, CommitUnknown, LogError
from adledger.pipeline.log.files.durable import not_read, not_written, write_all, write_whole
from adledger.pipeline.log.source import Assignment, Committed

OFFSETS = "offsets.log"
METADATA_BYTES_MAX = 4_096
"""As on Kafka (`offset.metadata.max.bytes`)."""
JOURNAL_BYTES_MAX = 8 * 1024 * 1024
"""A journal longer than this is rewritten without the commits that later ones replaced."""

_CHECK_CHARS = 9
"""Each line begins with the CRC32C of its JSON text in hex, and a space."""

Positions = Mapping[int, Committed]
"""Topic index -> committed position."""


@dataclass(slots=True)
class GroupState:
    """The group's member, and each lane's committed positions."""

    generation: int = 0
    member_id: str = ""
    lanes: dict[int, dict[int, Committed]] = field(default_factory=dict)

    def apply(self, lane: int, positions: Positions) -> None:
        """Apply a commit: it replaces the positions of its topics."""
        self.lanes.setdefault(lane, {}).update(positions)

    def to_lines(self) -> bytes:
        """Return the shortest journal with this state."""
        head = _line({"generation": self.generation, "member_id": self.member_id})
        return head + b"".join(
            _commit_line(lane, positions) for lane, positions in sorted(self.lanes.items())
        )


def read_state(path: Path) -> GroupState:
    """Return the state in a journal; without a file, that of a new group. Raises LogError on damage."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return GroupState()
    except OSError as error:
        raise not_read(path, error) from error
    lines = data.split(b"\n")[:-1]  # after the last line end there is nothing, or an incomplete line
    if len(lines) > 1 and not _is_whole(lines[-1]):
        del lines[-1]
    for number, line in enumerate(lines, 1):
        if not _is_whole(line):
            raise _damaged(path, number)
    documents = [orjson.loads(line[_CHECK_CHARS:]) for line in lines]
    if not documents or "generation" not in documents[0]:
        raise _damaged(path, 1)
    state = GroupState(documents[0]["generation"], documents[0]["member_id"])
    for document in documents[1:]:
        state.apply(document["lane"], {t: Committed(o, text) for t, o, text in document["positions"]})
    return state


class OffsetsJournal:
    """The journal as the group's one member writes it. Its methods block on the disk; any thread may call them."""

    def __init__(self, path: Path, member_id: str) -> None:
        """Begin the next generation in this member's name, durably. Raises LogError."""
        self._path = path
        self._lock = threading.Lock()
        self._state = read_state(path)
        self._state.generation += 1
        self._state.member_id = member_id
        self._fd = -1
        self._size = 0
        self._rewrite()

    @property
    def generation(self) -> int:
        """The generation that this journal was opened with."""
        return self._state.generation

    def committed(self, lane: int) -> dict[int, Committed]:
        """Return a lane's committed positions."""
        with self._lock:
            return dict(self._state.lanes.get(lane, {}))

    def commit(self, assignment: Assignment, positions: Positions) -> None:
        """Write a commit, and return when it is durable.

        Raises CommitFenced when the assignment is not of this generation and member, LogError when the metadata
        is too long or nothing could be written, CommitUnknown when the disk did not confirm the write.
        """
        line = _commit_line(assignment.lane, positions)
        for committed in positions.values():
            _check_metadata(committed.metadata)
        with self._lock:
            current = (self._state.generation, self._state.member_id)
            if self._fd < 0 or (assignment.generation, assignment.member_id) != current:
                raise fenced(assignment)
            if self._size + len(line) > JOURNAL_BYTES_MAX:
                self._rewrite()
            self._append(line)
            self._state.apply(assignment.lane, positions)

    def close(self) -> None:
        """Accept no more commits."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: bytes) -> None:
        try:
            write_all(self._fd, line, self._size)
        except OSError as error:
            raise not_written(self._path, error) from error  # the next commit overwrites the partial line
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._close()
            raise CommitUnknown(
                f"{self._path}: the disk did not confirm a commit ({error.strerror})",
                remedy="The worker joins again and finds out what was committed; check the disk.",
            ) from error
        self._size += len(line)

    def _rewrite(self) -> None:
        lines = self._state.to_lines()
        self._close()  # if this fails halfway, no later commit may go to the old file
        try:
            write_whole(self._path, lines)
            self._fd = os.open(self._path, os.O_RDWR)
        except OSError as error:
            raise not_written(self._path, error) from error
        self._size = len(lines)


def fenced(assignment: Assignment) -> CommitFenced:
    """Return the error for a commit in the name of an assignment that is not current."""
    return CommitFenced(
        f"lane {assignment.lane}: generation {assignment.generation} of member {assignment.member_id} is not current",
        remedy="Another member owns the lane now; this one must stop working on it.",
    )


def _check_metadata(text: str) -> None:
    size = len(text.encode())
    if size > METADATA_BYTES_MAX:
        raise LogError(
            f"commit metadata of {size} bytes is over the limit of {METADATA_BYTES_MAX}",
            remedy="This is a bug: an intent must fit. Please report it with the worker's log.",
        )


def _commit_line(lane: int, positions: Positions) -> bytes:
    rows = [(topic, committed.offset, committed.metadata) for topic, committed in sorted(positions.items())]
    return _line({"lane": lane, "positions": rows})


def _line(document: dict[str, Any]) -> bytes:
    text = orjson.dumps(document)
    return b"%08x %b\n" % (google_crc32c.value(text), text)


def _is_whole(line: bytes) -> bool:
    return line[:_CHECK_CHARS] == b"%08x " % google_crc32c.value(line[_CHECK_CHARS:])


def _damaged(path: Path, number: int) -> LogError:
    return LogError(
        f"{path}: line {number} is damaged, so the group's committed offsets are unknown",
        remedy="Restore the file; or remove the group's folder to start over on empty tables.",
    )
