"""The expected content of the tables: exact counts and nanos, known without running the pipeline."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from adledger.loadtest.traffic.kernels.shapes import I64, Records
from adledger.loadtest.traffic.kernels.tally import move, tally
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.recipes import RECIPES
from adledger.pipeline.errors import UsageError
from adledger.schemas.classes import Class
from adledger.schemas.wire import Malformed, currency_code

ROLLUP_KEY = ("publisher_id", "minute", "event_type_code", "class_code", "currency_code")

ROLLUP = np.dtype(
    [
        ("publisher_id", "u4"),
        ("minute", "u4"),  # seconds since the epoch, start of the minute of event_time
        ("event_type_code", "u1"),
        ("class_code", "u1"),
        ("currency_code", "u2"),
        ("records", "i8"),
        ("money_nanos", "i8"),
    ]
)
"""A row of the expected rollup, over all lanes and batches; sorted by ROLLUP_KEY, no key twice."""

EXPECTED = np.dtype(
    [
        ("topic", "u1"),
        ("partition", "u2"),
        ("offset", "i8"),
        ("publisher_id", "u4"),
        ("minute", "u4"),
        ("event_type_code", "u1"),
        ("class_code", "u1"),
        ("currency_code", "u2"),
        ("money_nanos", "i8"),
        ("conflict", "u1"),
        ("misrouted", "u1"),
        (
            "malformed",
            "u1",
        ),  # adledger.schemas.wire.Malformed; then only topic, partition, offset and class_code are set
        ("label", "u1"),
    ]
)
"""What is expected of one record."""

CLASSES = max(Class) + 1
REASONS = max(Malformed) + 1

_REASON_OF_RECIPE = np.array([Malformed.OK, *(recipe.reason for recipe in RECIPES)], np.uint8)
_TABLE_PLACES = 2**16
"""The table's initial size; it doubles as it fills."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Expected tables of some records.

    `rollup` (ROLLUP) has the decodable ones. `classes[lane, class code]`, `malformed[reason code]`,
    `misrouted[lane]` and `conflicts[lane]` count records.
    """

    rollup: Records
    classes: I64
    malformed: I64
    misrouted: I64
    conflicts: I64

    @property
    def records_received(self) -> int:
        """All records."""
        return int(self.classes.sum())

    def money(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return (class code, currency code) -> (records, nanos), both exact."""
        totals = {}
        kind = self.rollup["class_code"].astype(np.uint32) << np.uint32(16) | self.rollup["currency_code"]
        for code in np.unique(kind).tolist():
            rows = self.rollup[kind == code]
            totals[code >> 16, code & 0xFFFF] = int(rows["records"].sum()), exact_sum(rows["money_nanos"])
        return totals

    def merge(self, other: "GroundTruth") -> "GroundTruth":
        """Return the ground truth of both, which share no record. Raises UsageError for different partition counts."""
        if len(self.misrouted) != len(other.misrouted):
            raise UsageError(
                f"ground truths of {len(self.misrouted)} and {len(other.misrouted)} partitions don't add up",
                remedy="generate both for one log",
            )
        return GroundTruth(
            added(np.concatenate([self.rollup, other.rollup])),
            self.classes + other.classes,
            self.malformed + other.malformed,
            self.misrouted + other.misrouted,
            self.conflicts + other.conflicts,
        )

    def save(self, path: Path) -> None:
        """Write the ground truth as an npz file."""
        with path.open("wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the ground truth that `save` wrote."""
        with np.load(path) as arrays:
            return cls(**{name: arrays[name] for name in cls.__slots__})

    @classmethod
    def empty(cls, partitions: int) -> Self:
        """Return the ground truth of no records."""
        lanes = np.zeros(partitions, np.int64)
        return cls(
            np.zeros(0, ROLLUP),
            np.zeros((partitions, CLASSES), np.int64),
            np.zeros(REASONS, np.int64),
            lanes,
            lanes.copy(),
        )

    @classmethod
    def of(cls, expected: Records, partitions: int) -> Self:
        """Return the ground truth of records of dtype EXPECTED."""
        decodable = expected[expected["malformed"] == 0]
        rollup = np.zeros(len(decodable), ROLLUP)
        for name in (*ROLLUP_KEY, "money_nanos"):
            rollup[name] = decodable[name]
        rollup["records"] = 1
        lane = expected["partition"]
        return cls(
            added(rollup),
            _count(lane, expected["class_code"], partitions),
            np.bincount(expected["malformed"][expected["malformed"] > 0], minlength=REASONS).astype(np.int64),
            np.bincount(lane[expected["misrouted"] > 0], minlength=partitions).astype(np.int64),
            np.bincount(lane[expected["conflict"] > 0], minlength=partitions).astype(np.int64),
        )


class GroundTruthBuilder:
    """Adds up the ground truth of a model's rows, chunk by chunk, in memory of about 50 bytes a rollup row."""

    def __init__(self, model: TrafficModel) -> None:
        self._currencies = sorted(map(currency_code, (model.currency, model.second_currency)))
        self._counts = GroundTruth.empty(model.partitions)
        self._keys = np.zeros(_TABLE_PLACES, np.uint64)
        self._records, self._money = np.zeros((2, _TABLE_PLACES), np.int64)
        self._used = 0

    def add(self, rows: Records) -> None:
        """Add rows (kernels.shapes.ROW)."""
        counts, done = self._counts, 0
        while done < len(rows):
            done, self._used = tally(
                rows, done, self._currencies[0], _REASON_OF_RECIPE, self._keys, self._records, self._money,
                self._used, counts.classes, counts.malformed, counts.misrouted, counts.conflicts,
            )  # fmt: skip
            if done < len(rows):
                self._grow()

    def build(self) -> GroundTruth:
        """Return the ground truth of all rows so far."""
        places = np.flatnonzero(self._keys)
        places = places[np.argsort(self._keys[places])]
        keys = self._keys[places]
        rollup = np.empty(len(keys), ROLLUP)
        rollup["publisher_id"] = keys >> np.uint64(32)
        rollup["minute"] = ((keys >> np.uint64(5)) & np.uint64(2**27 - 1)) * np.uint64(60)
        rollup["event_type_code"] = ((keys >> np.uint64(4)) & np.uint64(1)) + np.uint64(1)
        rollup["class_code"] = (keys >> np.uint64(1)) & np.uint64(7)
        rollup["currency_code"] = np.array(self._currencies)[(keys & np.uint64(1)).astype(np.int64)]
        rollup["records"] = self._records[places]
        rollup["money_nanos"] = self._money[places]
        counts = self._counts
        return GroundTruth(
            rollup,
            counts.classes.copy(),
            counts.malformed.copy(),
            counts.misrouted.copy(),
            counts.conflicts.copy(),
        )

    def _grow(self) -> None:
        keys = np.zeros(2 * len(self._keys), np.uint64)
        records, money = np.zeros((2, len(keys)), np.int64)
        move(self._keys, self._records, self._money, keys, records, money)
        self._keys, self._records, self._money = keys, records, money


def exact_sum(values: npt.NDArray[np.int64]) -> int:
    """Return the sum as a Python integer, which can't overflow as long as there are less than 2^31 values."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def merged(truths: Iterable[GroundTruth], partitions: int) -> GroundTruth:
    """Return the combined ground truth."""
    return reduce(GroundTruth.merge, truths, GroundTruth.empty(partitions))


def expected_of(rows: Records, offsets: I64) -> Records:
    """Return what is expected of rows (kernels.shapes.ROW) at these offsets."""
    expected = np.zeros(len(rows), EXPECTED)
    expected["offset"] = offsets
    for name in ("topic", "partition", "class_code", "conflict", "misrouted", "label"):
        expected[name] = rows[name]
    broken = rows["class_code"] == Class.MALFORMED
    expected["malformed"] = np.where(broken, _REASON_OF_RECIPE[rows["recipe"]], 0)
    fine = expected[~broken]
    good = rows[~broken]
    for name in ("publisher_id", "currency_code", "money_nanos"):
        fine[name] = good[name]
    fine["event_type_code"] = good["event_type"]
    fine["minute"] = good["event_time"] // 60_000 * 60
    expected[~broken] = fine
    return expected


def _count(lane: npt.NDArray[np.uint16], class_code: npt.NDArray[np.uint8], partitions: int) -> I64:
    cells = np.bincount(lane.astype(np.int64) * CLASSES + class_code, minlength=partitions * CLASSES)
    return cells.reshape(partitions, CLASSES).astype(np.int64)


def added(rollup: Records) -> Records:
    """Return rows (ROLLUP) sorted, with those of one key added up."""
    if not len(rollup):
        return rollup
    where = rollup["publisher_id"].astype(np.uint64) << np.uint64(32) | rollup["minute"]
    kind = rollup["event_type_code"].astype(np.uint32) << np.uint32(24)
    kind |= rollup["class_code"].astype(np.uint32) << np.uint32(16) | rollup["currency_code"]
    order = np.lexsort((kind, where))
    rollup = rollup[order]
    starts = np.flatnonzero(_begins(where[order]) | _begins(kind[order]))
    added = rollup[starts]
    added["records"] = np.add.reduceat(rollup["records"], starts)
    added["money_nanos"] = np.add.reduceat(rollup["money_nanos"], starts)
    return added


def _begins(sorted_key: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.bool_]:
    """Return at which rows a run of equal keys begins."""
    return np.concatenate([[len(sorted_key) > 0], sorted_key[1:] != sorted_key[:-1]])
