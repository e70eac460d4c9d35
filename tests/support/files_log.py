"""Reading a whole `files:` log, for tests."""

import asyncio
from pathlib import Path

from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.stages.walk import walk
from tests.support.records import Stored, read_back

EVERYTHING_BYTES = 1 << 28


def read_log(folder: Path) -> dict[tuple[int, int], list[Stored]]:
    """Return (topic, partition) -> its records."""
    return asyncio.run(_read_log(FilesSource(folder, "looking")))


async def _read_log(source: FilesSource) -> dict[tuple[int, int], list[Stored]]:
    topics = range(len(source.topology.topics))
    return {
        (fetched.topic, lane): read_back(walk(fetched))
        for lane in range(source.topology.partitions)
        for fetched in await source.fetch(lane, dict.fromkeys(topics, 0), EVERYTHING_BYTES, 0)
    }
