"""How many of some records a `files:` log has already, byte for byte: they become duplicates, and lose nothing."""

import asyncio
from array import array
from pathlib import Path

import numpy as np

from adledger.pipeline.kernels.hashing import hash_all
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.records.columns import U64
from adledger.pipeline.stages.walk import walk

FETCH_BYTES = 16 * 1024 * 1024


def count_in_log(folder: Path, hashes: "array[int]") -> int:
    """Return how many of these hashes (xxHash64 of values) match a record in the log. Raises LogError."""
    wanted = np.array(hashes, np.uint64)
    missing = np.unique(wanted)
    found = asyncio.run(_found(FilesSource(folder, "import"), missing))
    return int(np.isin(wanted, found).sum())


async def _found(source: FilesSource, wanted: U64) -> U64:
    present = np.zeros(len(wanted), np.bool_)
    for lane in range(source.topology.partitions):
        positions = dict.fromkeys(range(len(source.topology.topics)), 0)
        for topic, bounds in (await source.bounds(lane)).items():
            positions[topic] = bounds.first
        while positions and not present.all():
            for fetched in await source.fetch(lane, positions, FETCH_BYTES, 0):
                refs = walk(fetched)
                hashes, parts = np.empty(len(refs), np.uint64), np.empty(len(refs), np.uint64)
                lengths = np.maximum(refs.value_len, 0).astype(np.int64)
                hash_all(refs.value_addr, lengths, np.uint64(1), hashes, parts)
                present |= np.isin(wanted, hashes)
                if fetched.drained:
                    positions.pop(fetched.topic, None)
                else:
                    positions[fetched.topic] = fetched.next_offset
    return wanted[present]
