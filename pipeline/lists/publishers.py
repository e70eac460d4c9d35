"""The publishers that the deployment knows, as of one read of the table: the pure structure and its look-up."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from adledger.pipeline.kernels import lists as kernels
from adledger.pipeline.lists.facts import content_hash
from adledger.pipeline.records.columns import U8, U32

PUBLISHERS_MAX = 1 << 24
"""16 million: 170 MB of table, forty times what the pipeline is designed for."""


class PublisherStatus(IntEnum):
    """What is known of a publisher. UNKNOWN is never in a row: it is the answer for one that no row names."""

    UNKNOWN = 0
    ACTIVE = 1
    SUSPENDED = 2


@dataclass(frozen=True, slots=True)
class PublisherRow:
    """One version of one publisher, a row of the append-only table: the highest version counts."""

    publisher_id: int
    status: PublisherStatus
    version: int


class PublisherSnapshot:
    """Status of each publisher: an immutable hash table, 5 bytes a slot, 10 to 20 bytes a publisher."""

    def __init__(self, statuses: dict[int, PublisherStatus]) -> None:
        if len(statuses) > PUBLISHERS_MAX:
            raise ValueError(f"{len(statuses):,} publishers, more than {PUBLISHERS_MAX:,}")
        assert all(statuses.values()), "a row says what is known"
        ids = np.array(sorted(statuses), np.uint32)
        values = np.array([statuses[int(each)] for each in ids], np.uint8)
        bits = max(4, (2 * len(ids) - 1).bit_length() if len(ids) else 4)
        self._shift = np.uint64(64 - bits)
        self._keys = np.zeros(1 << bits, np.uint32)
        self._statuses = np.zeros(1 << bits, np.uint8)
        kernels.enter_publishers(self._keys, self._statuses, self._shift, ids, values)
        self._count = len(ids)
        self.version = content_hash(f"{i} {v}" for i, v in zip(ids.tolist(), values.tolist(), strict=True))[
            :16
        ]

    @classmethod
    def of(cls, rows: Iterable[PublisherRow]) -> "PublisherSnapshot":
        """Return the snapshot of rows in any order. Raises ValueError where one version of one publisher says two things."""
        newest: dict[int, PublisherRow] = {}
        for row in rows:
            held = newest.get(row.publisher_id)
            if held is not None and held.version == row.version and held.status != row.status:
                raise ValueError(f"publisher {row.publisher_id} has two statuses in version {row.version}")
            if held is None or row.version > held.version:
                newest[row.publisher_id] = row
        return cls({row.publisher_id: row.status for row in newest.values()})

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self._keys.nbytes + self._statuses.nbytes

    @property
    def why_not(self) -> str:
        """Why rules about publishers are not evaluated; "" where they are. An empty table would reject everybody."""
        return "" if self._count else "the table publishers is empty"

    def classify(self, publisher_id: U32) -> U8:
        """Return the PublisherStatus of n publishers."""
        out = np.empty(len(publisher_id), np.uint8)
        kernels.publisher_statuses(self._keys, self._statuses, self._shift, publisher_id, out)
        return out
