"""The publisher monitor: live minutes of each publisher, from the messages of `ad.rollups`. Pure.

A minute is of event time. Impressions and clicks are the billable ones; shares are of all records received (billable,
duplicate, invalid, expired; malformed ones have no publisher). Figures are live, not for billing: they follow the
lanes' watermarks, which are reported with them; exact figures are in ClickHouse.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

from adledger.pipeline.control.rollups_message import RollupsMessage
from adledger.pipeline.kernels.live import (
    CLICKS,
    DUPLICATES,
    IMPRESSIONS,
    INVALID,
    RECEIVED,
    WIDTH,
    add_rows,
    find,
    move,
)
from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret

MINUTES = 60
"""Minutes that are kept, back from the newest watermark."""

SLOTS_MAX = 1 << 24
"""Room for publisher-minutes, 24 bytes each: 400 MB. A minute's table doubles when it is 7/8 full, so
that 400,000 publishers take 2^19 slots a minute, and 32 minutes fit of a time when every one of them is busy; all 60
fit up to 229,000 a minute. At the limit the oldest minute is dropped early, and counted."""

SLOTS_MIN = 1 << 10
"""Slots of a new minute's table."""

BATCHES_REMEMBERED = 1_024
"""How far behind a lane's newest batch a repeat and a late batch are distinguished; anything older counts as a repeat."""

LANES_MAX = 1_024
"""(epoch, lane) pairs whose batches are remembered; the least recently updated one is forgotten."""

MINUTE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class MonitorLimits:
    """The limits above; the defaults are a worker's."""

    minutes: int = MINUTES
    slots_max: int = SLOTS_MAX


@dataclass(slots=True)
class MonitorCounts:
    """What was absorbed since the start."""

    messages: int = 0
    repeats: int = 0  # messages absorbed before, or too old to know
    records: int = 0  # in publishers' minutes
    late_records: int = 0  # of minutes beyond the horizon, or dropped early: in no minute
    minutes_given_up: int = 0  # dropped early, for lack of room


@dataclass(slots=True)
class _Lane:
    """What is known of one lane in one epoch. `seen`: batch number * 2^16 + part, of the newest batches."""

    clock: int = 0
    newest: int = -1
    seen: set[int] = field(default_factory=set)

    def is_new(self, batch_no: int, part: int) -> bool:
        """Return whether this part was not seen before, and remember it."""
        identity = batch_no << 16 | part
        if batch_no <= self.newest - BATCHES_REMEMBERED or identity in self.seen:
            return False
        self.seen.add(identity)
        if batch_no > self.newest:
            self.newest = batch_no
            if len(self.seen) > 2 * BATCHES_REMEMBERED:
                oldest = (batch_no - BATCHES_REMEMBERED + 1) << 16
                self.seen = {i for i in self.seen if i >= oldest}
        return True


@dataclass(slots=True)
class _Minute:
    table: Any  # u32[capacity, WIDTH], see adledger.pipeline.kernels.live
    taken: int = 0

    @property
    def taken_max(self) -> int:
        return len(self.table) * 7 // 8


class PublisherMonitor:
    """Absorbs messages of all lanes, in any order of lanes, and returns a publisher's last minutes.

    Not for several threads at once. Memory: `limits.slots_max` slots of 24 bytes.
    """

    def __init__(self, limits: MonitorLimits | None = None, secret: SlotSecret = KNOWN_SECRET) -> None:
        """Begin empty. `secret`: of the tables' slots; it decides only where publishers are stored."""
        self._secret = secret
        self._limits = limits or MonitorLimits()
        assert self._limits.slots_max >= SLOTS_MIN, f"room for at least {SLOTS_MIN} slots"
        self._minutes: dict[int, _Minute] = {}  # by seconds since the epoch
        self._lanes: OrderedDict[tuple[str, int], _Lane] = OrderedDict()
        self._slots = 0
        self._clock = 0  # the newest of all lanes (ms)
        self._given_up = -MINUTE_SECONDS  # the newest minute that was dropped early
        self.counts = MonitorCounts()

    @property
    def publisher_minutes(self) -> int:
        """Publisher-minutes that are kept."""
        return sum(minute.taken for minute in self._minutes.values())

    @property
    def bytes_held(self) -> int:
        """Bytes of the tables."""
        return self._slots * WIDTH * 4

    def absorb(self, message: RollupsMessage) -> bool:
        """Count a message's records. Returns False for a repeat, which only changes `counts.repeats`."""
        lane = self._lane(message.epoch, message.lane)
        if not lane.is_new(message.batch_no, message.part):
            self.counts.repeats += 1
            return False
        self.counts.messages += 1
        lane.clock = max(lane.clock, message.clock_after)
        if message.clock_after > self._clock:
            self._clock = message.clock_after
            self._expire()
        minutes = message.rollup["minute"]
        bounds = np.flatnonzero(np.diff(minutes, prepend=-1, append=-1)).tolist() if len(minutes) else []
        for begin, end in pairwise(bounds):
            self._add(int(minutes[begin]), message, slice(begin, end))
        return True

    def live(self, publisher_id: int) -> dict[str, Any]:
        """Return a publisher's last minutes, newest first, as JSON values; a publisher without records has none.

        `publisher_id` is a u32. A share of nothing is None.
        """
        minutes = [
            (minute, counts)
            for minute in sorted(self._minutes, reverse=True)
            if (counts := self._counts(minute, publisher_id)) is not None
        ]
        totals = np.sum([counts for _, counts in minutes], axis=0, dtype=np.int64) if minutes else [0] * WIDTH
        return {
            "publisher_id": publisher_id,
            "as_of": self.as_of(),
            "minutes_max": self._limits.minutes,
            "minutes": [{"minute": _utc(minute), **_figures(counts)} for minute, counts in minutes],
            "totals": _figures(totals),
        }

    def as_of(self) -> dict[str, Any]:
        """Return how current the figures are: the watermark of each lane, and the oldest and newest of them."""
        clocks: dict[int, int] = {}
        for (_, number), lane in self._lanes.items():
            clocks[number] = max(lane.clock, clocks.get(number, 0))
        return {
            "oldest": _utc(min(clocks.values()) / 1000) if clocks else None,
            "newest": _utc(max(clocks.values()) / 1000) if clocks else None,
            "lanes": {str(number): _utc(clocks[number] / 1000) for number in sorted(clocks)},
            "since": _utc(self._since()) if clocks else None,
        }

    def _since(self) -> int:
        """Return the oldest minute that is kept: `minutes` of them up to the newest watermark's, except those dropped early."""
        newest = self._clock // 1000 // MINUTE_SECONDS * MINUTE_SECONDS
        horizon = newest - (self._limits.minutes - 1) * MINUTE_SECONDS
        return max(horizon, self._given_up + MINUTE_SECONDS)

    def _lane(self, epoch: str, number: int) -> _Lane:
        lane = self._lanes.setdefault((epoch, number), _Lane())
        self._lanes.move_to_end((epoch, number))
        if len(self._lanes) > LANES_MAX:
            self._lanes.popitem(last=False)
        return lane

    def _expire(self) -> None:
        since = self._since()
        for minute in [m for m in self._minutes if m < since]:
            self._drop(minute)

    def _drop(self, minute: int) -> None:
        self._slots -= len(self._minutes.pop(minute).table)

    def _add(self, minute: int, message: RollupsMessage, rows: slice) -> None:
        """Add the rows of one minute."""
        columns = [
            message.rollup[name][rows]
            for name in ("publisher_id", "event_type_code", "class_code", "records")
        ]
        records, begin = columns[-1], 0
        while begin < len(records) and minute >= self._since():
            kept = self._minutes.get(minute)
            if kept is not None:
                begin, kept.taken = add_rows(
                    kept.table,
                    self._secret.slots(len(kept.table)),
                    kept.taken,
                    kept.taken_max,
                    begin,
                    *columns,
                )
            if begin < len(records):
                self._grow(minute)
        self.counts.records += int(records[:begin].sum(dtype=np.int64))
        self.counts.late_records += int(records[begin:].sum(dtype=np.int64))

    def _grow(self, minute: int) -> None:
        """Give a minute a table, or one of twice the size; if there is no room, drop the oldest minute."""
        kept = self._minutes.get(minute) or _Minute(np.zeros((0, WIDTH), np.uint32))
        size = max(SLOTS_MIN, 2 * len(kept.table))
        more = size - len(kept.table)
        if self._slots + more > self._limits.slots_max:
            self._given_up = min([*self._minutes, minute])
            self.counts.minutes_given_up += 1
            if self._given_up in self._minutes:
                self._drop(self._given_up)
            return
        table = np.zeros((size, WIDTH), np.uint32)
        move(kept.table, table, self._secret.slots(size))
        self._minutes[minute] = _Minute(table, kept.taken)
        self._slots += more

    def _counts(self, minute: int, publisher_id: int) -> Any:
        table = self._minutes[minute].table
        found = table[find(table, self._secret.slots(len(table)), np.uint32(publisher_id))]
        return found if found[RECEIVED] else None


def _figures(counts: Any) -> dict[str, Any]:
    impressions, clicks, received = (int(counts[c]) for c in (IMPRESSIONS, CLICKS, RECEIVED))
    duplicates, invalid = int(counts[DUPLICATES]), int(counts[INVALID])
    return {
        "impressions": impressions,
        "clicks": clicks,
        "ctr": _share(clicks, impressions),
        "received": received,
        "duplicates": duplicates,
        "duplicate_share": _share(duplicates, received),
        "invalid": invalid,
        "invalid_share": _share(invalid, received),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
