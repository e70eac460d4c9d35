"""How far each partition is durable: `DIR/ends.json`, which the writer replaces atomically at each flush.

Readers see exactly the records below these ends, in all partitions as of one moment. Below the ends every byte must be
valid, and a defect is an error; bytes above them are left over from an interrupted write and count for nothing (Kafka's
recovery point and high watermark in one).
"""

from dataclasses import dataclass
from pathlib import Path

import orjson

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.files.durable import not_read, write_whole
from adledger.pipeline.log.files.manifest import Manifest

ENDS = "ends.json"

NO_LOG_TIME = -1


@dataclass(frozen=True, slots=True)
class End:
    """Where one partition ends."""

    offset: int = 0  # the next record's
    segment: int = 0  # base offset of the segment that takes the next record
    position: int = 0  # bytes of that segment that are durable
    log_time_max: int = NO_LOG_TIME  # ms; the largest so far


Ends = tuple[tuple[End, ...], ...]
"""`ends[topic][partition]`."""


def no_ends(manifest: Manifest) -> Ends:
    """Return the ends of a log without records."""
    return tuple(tuple(End() for _ in range(manifest.partitions)) for _ in manifest.topics)


def write_ends(log: Path, manifest: Manifest, ends: Ends) -> None:
    """Publish the ends; the bytes below them must be on the disk already. Raises OSError."""
    rows = [[[e.offset, e.segment, e.position, e.log_time_max] for e in partitions] for partitions in ends]
    write_whole(log / ENDS, orjson.dumps({"log_id": manifest.log_id, "ends": rows}))


class EndsFile:
    """The ends as last read; `refresh` parses the file again only when it has changed."""

    def __init__(self, log: Path, manifest: Manifest) -> None:
        self._path = log / ENDS
        self._log_id = manifest.log_id
        self._shape = [manifest.partitions] * len(manifest.topics)
        self._text: bytes | None = None
        self._ends: Ends = ()

    def refresh(self) -> Ends:
        """Return the current ends. Raises LogError when they can't be read or belong to another log."""
        try:
            text = self._path.read_bytes()
        except OSError as error:
            raise not_read(self._path, error) from error
        if text != self._text:
            self._ends = self._parse(text)
            self._text = text
        return self._ends

    def _parse(self, data: bytes) -> Ends:
        try:
            document = orjson.loads(data)
            if document["log_id"] != self._log_id:
                raise LogError(
                    f"{self._path.parent} was recreated: its id is {document['log_id']}, it was {self._log_id}",
                    remedy="This is another log: start again with another group or database.",
                )
            ends = tuple(tuple(End(*row) for row in partitions) for partitions in document["ends"])
        except (ValueError, KeyError, TypeError) as error:
            raise LogError(
                f"{self._path} can't be parsed: {error}",
                remedy="Restore the log's folder from its source.",
            ) from error
        if [len(partitions) for partitions in ends] != self._shape:
            raise LogError(
                f"{self._path} does not have the partitions that the manifest names",
                remedy="Restore the log's folder from its source.",
            )
        return ends
