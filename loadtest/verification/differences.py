"""Expected rows against found ones, exactly: what differs, and by how much."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from adledger.loadtest.traffic.ground_truth import ROLLUP, ROLLUP_KEY, added
from adledger.loadtest.traffic.kernels.shapes import Records
from adledger.pipeline.ledger.totals import money_text
from adledger.schemas.classes import CLASS_NAMES, Class
from adledger.schemas.wire import EventType, currency_text

SPAN_ROWS = 500_000
"""The most expected rows that are compared at once (one publisher's rows stay together)."""


@dataclass(frozen=True, slots=True)
class RollupDifference:
    """A publisher-minute row that is not as expected; a row that is missing counts as 0 records."""

    table: str
    key: tuple[int, int, int, int, int]  # in the order of ROLLUP_KEY
    expected: tuple[int, int]  # records, nanos
    found: tuple[int, int]

    def __str__(self) -> str:
        publisher, minute, kind, code, currency = self.key
        when = np.datetime64(minute, "s")
        same_records = self.found[0] == self.expected[0]
        records = f"{self.found[0]:,} records{'' if same_records else f' instead of {self.expected[0]:,}'}"
        unit = currency_text(currency)
        money = f"{money_text(self.found[1])} {unit} instead of {money_text(self.expected[1])}"
        same_money = self.found[1] == self.expected[1]
        return (
            f"{self.table}: publisher {publisher}, {when}Z, {CLASS_NAMES[Class(code)]} "
            f"{EventType(kind).name.lower()}s: {records}{'' if same_money else f', {money}'}"
        )


def publisher_spans(rollup: Records, rows_max: int = SPAN_ROWS) -> Iterator[tuple[int, int]]:
    """Yield spans [from, to) of publishers that cover all 2^32, each with about rows_max rows of a sorted rollup."""
    publishers = rollup["publisher_id"]
    begin, at = 0, rows_max
    while at < len(publishers):
        end = int(publishers[at])
        if end > begin:
            yield begin, end
            begin = end
        at += rows_max
    yield begin, 2**32


def differing(expected: Records, found: Records) -> Records:
    """Return the keys (rows of ROLLUP) at which two sorted rollups are not equal; expected minus found as values."""
    if np.array_equal(expected, found):
        return np.zeros(0, ROLLUP)
    minus = found.copy()
    minus["records"] *= -1
    minus["money_nanos"] *= -1
    rest = added(np.concatenate([expected, minus]))
    return rest[(rest["records"] != 0) | (rest["money_nanos"] != 0)]


def differences(table: str, expected: Records, found: Records, keys: Records) -> list[RollupDifference]:
    """Return the values of both rollups at the given keys."""
    both = [_lookup(rollup, keys) for rollup in (expected, found)]
    return [
        RollupDifference(table, key, *(values.get(key, (0, 0)) for values in both))
        for key in map(_key, keys.tolist())
    ]


def _key(row: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    return row[0], row[1], row[2], row[3], row[4]


def _lookup(rollup: Records, keys: Records) -> dict[tuple[int, int, int, int, int], tuple[int, int]]:
    near = rollup[np.isin(rollup["publisher_id"], keys["publisher_id"])]
    near = near[np.isin(near["minute"], keys["minute"])]
    assert near.dtype.names is not None
    assert near.dtype.names[: len(ROLLUP_KEY)] == ROLLUP_KEY
    return {_key(row): (row[5], row[6]) for row in near.tolist()}
