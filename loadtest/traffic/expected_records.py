"""Expectations for single records, recomputed when a difference must be explained, so that nothing is stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import EXPECTED, expected_of
from adledger.loadtest.traffic.kernels.shapes import I64, Records
from adledger.loadtest.traffic.write import Written

U64 = npt.NDArray[np.uint64]


def publisher_minutes(rows: Records) -> U64:
    """Return the publisher and minute of rows (ROLLUP or EXPECTED) as one number."""
    return rows["publisher_id"].astype(np.uint64) << np.uint64(32) | rows["minute"]


class ExpectedRecords(Protocol):
    """The expectations for each record of a part of the log."""

    def of_publisher_minutes(self, wanted: U64) -> Records:
        """Return the decodable records (EXPECTED) of these publishers and minutes."""

    def malformed(self) -> Records:
        """Return the malformed records (EXPECTED)."""


@dataclass(frozen=True, slots=True)
class ListedRecords:
    """A list of expected records (EXPECTED)."""

    records: Records

    def of_publisher_minutes(self, wanted: U64) -> Records:
        """Return the decodable records (EXPECTED) of these publishers and minutes."""
        fine = self.records[self.records["malformed"] == 0]
        return fine[np.isin(publisher_minutes(fine), wanted)]

    def malformed(self) -> Records:
        """Return the malformed records (EXPECTED)."""
        return self.records[self.records["malformed"] > 0]


@dataclass(frozen=True, slots=True)
class GeneratedRecords:
    """Generated records, regenerated for each call (a second for two million)."""

    written: Written

    def of_publisher_minutes(self, wanted: U64) -> Records:
        """Return the decodable records (EXPECTED) of these publishers and minutes."""
        return np.concatenate(
            [ListedRecords(expected).of_publisher_minutes(wanted) for expected in self._chunks()]
            + [np.zeros(0, EXPECTED)]
        )

    def malformed(self) -> Records:
        """Return the malformed records (EXPECTED)."""
        parts = [ListedRecords(expected).malformed() for expected in self._chunks()]
        return np.concatenate([*parts, np.zeros(0, EXPECTED)])

    def placed(self) -> Iterator[tuple[Records, I64]]:
        """Yield all records (ROW) by topic and partition, chunk by chunk, and the offset of each."""
        ends = self.written.first_offsets.copy()
        for chunk in Generator(self.written.model).rows():
            rows = chunk.rows[chunk.order]
            yield rows, _offsets(rows, ends)

    def _chunks(self) -> Iterator[Records]:
        return (expected_of(rows, offsets) for rows, offsets in self.placed())


def _offsets(rows: Records, ends: I64) -> I64:
    """Return the offsets of rows in the order of (topic, partition), and advance the ends past them."""
    place = rows["topic"].astype(np.int64) * ends.shape[1] + rows["partition"]
    counts = np.bincount(place, minlength=ends.size)
    begins = np.cumsum(counts) - counts
    offsets = np.arange(len(rows)) - begins[place] + ends.ravel()[place]
    ends += counts.reshape(ends.shape)
    return offsets
