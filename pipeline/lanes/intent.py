"""Intents: what a lane is about to write, as metadata committed with its offsets."""

from dataclasses import dataclass, field, replace

import orjson

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.halts import HaltReason
from adledger.sinks.sink import OffsetRange, Stamp

METADATA_BYTES_MAX = 4_096
"""Kafka's default limit for a commit's metadata."""

VERSION = 3
"""The metadata's version; raised when older releases can no longer settle the batch as this one would.

2: the decoder accepts more than before, and gives other reasons (docs/adr/0021-wire-contract.md). An older release would
put its own reasons into the digest of dead letters that this one had written.
3: rollups have rows of their own for events after close. An older release would derive rollup rows without them.
"""
READABLE_VERSIONS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Intent:
    """The next batch of a lane: its ranges, its rows by table, and the deadline by which they may arrive.

    `event_rows` and `dead_rows` pin how many rows the batch has in `events` and `dead_letters`, so that a later
    release can tell "all" from "some" without decoding as this one does; `malformed` is how many records the rows of
    `dead_letters` cover (None, an older release's: one each). `is_override`: an operator override, which reads
    no records; its ranges are offsets given up. `leader_epochs` as in the ledger entry; none in older intents.
    `version` is that of the metadata as committed; what this release commits has its own. `sender` names the assignment that
    committed it: two workers that cut the same batch in the same second send different texts, so each knows its own.
    """

    epoch: str
    lane: int
    batch_no: int
    ranges: tuple[OffsetRange, ...]
    cut_time: int
    cut_topic: int
    cut_offset: int
    clock_before: int
    clock_after: int
    event_rows: int
    dead_rows: int
    judge_version: int
    send_by: int
    is_override: bool = False
    leader_epochs: tuple[int, ...] = ()
    malformed: int | None = None
    version: int = field(default=VERSION, compare=False)
    sender: str = field(default="", compare=False)

    @property
    def stamp(self) -> Stamp:
        """The stamp of the batch's rows."""
        return Stamp(self.lane, self.batch_no, self.send_by)

    def with_send_by(self, send_by: int, sender: str = "") -> "Intent":
        """Return the same intent with another deadline (server second), as `sender` commits it."""
        return replace(self, send_by=send_by, version=VERSION, sender=sender)

    def text(self) -> str:
        """Return the metadata to commit, at most METADATA_BYTES_MAX bytes."""
        fields = {
            "v": self.version, "epoch": self.epoch, "lane": self.lane, "batch": self.batch_no,
            "ranges": [[r.topic, r.start, r.end] for r in self.ranges],
            "cut": [self.cut_time, self.cut_topic, self.cut_offset],
            "clock": [self.clock_before, self.clock_after],
            "rows": [self.event_rows, self.dead_rows],
            "judge": self.judge_version, "send_by": self.send_by,
            **({"ordered": True} if self.is_override else {}),
            **({"leaders": self.leader_epochs} if self.leader_epochs else {}),
            **({"malformed": self.malformed} if self.malformed not in (None, self.dead_rows) else {}),
            **({"by": self.sender} if self.sender else {}),
        }  # fmt: skip
        text = orjson.dumps(fields).decode()
        assert len(text) <= METADATA_BYTES_MAX, f"an intent of {len(text)} bytes"
        return text

    @classmethod
    def parse(cls, text: str, where: str) -> "Intent":
        """Return the intent of a commit's metadata. Raises LaneHalted if it is not one."""
        try:
            f = orjson.loads(text)
            if f["v"] not in READABLE_VERSIONS:  # first: another version may have other fields
                _stop_version(where, f["v"])
            cut_time, cut_topic, cut_offset = f["cut"]
            clock_before, clock_after = f["clock"]
            event_rows, dead_rows = f["rows"]
            found = cls(
                f["epoch"], f["lane"], f["batch"], tuple(OffsetRange(*r) for r in f["ranges"]),
                cut_time, cut_topic, cut_offset, clock_before, clock_after, event_rows, dead_rows,
                f["judge"], f["send_by"], f.get("ordered", False), tuple(f.get("leaders", ())), f.get("malformed"),
                f["v"], f.get("by", ""),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise LaneHalted(
                f"{where}: the committed metadata is not an intent of this release: {text[:200]!r} ({error})",
                reason=HaltReason.COMMITS_UNREADABLE,
                remedy="another program commits for this group, or a newer release did; give adledger a group of its own",
            ) from None
        return found


def _stop_version(where: str, version: object) -> None:
    raise LaneHalted(
        f"{where}: the committed intent has version {version}, this release knows up to {VERSION}",
        reason=HaltReason.NEWER_INTENT,
        remedy="run the release that committed it, or a newer one",
    )
