"""Writing the strings behind hashes: one insert a table for all waiting lanes."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from adledger.sinks.sink import BatchWriter, Columns


class DimensionStringWriter:
    """Writes user agents and pages, batched over lanes. Idempotent: after a failure they are simply written again."""

    def __init__(self, sink: BatchWriter) -> None:
        self._sink = sink
        self._lock = asyncio.Lock()
        self._queue: list[Mapping[str, Columns]] = []
        self._queued = 0
        self._written = 0

    async def write(self, texts: Mapping[str, Columns]) -> None:
        """Write, and return when the strings are durable. Raises SinkError."""
        if not texts:
            return
        self._queue.append(texts)
        self._queued += 1
        mine = self._queued
        async with self._lock:
            if self._written >= mine:
                return
            taken, upto = list(self._queue), self._queued
            for table, columns in _gathered(taken).items():
                await self._sink.insert_texts(table, columns)
            del self._queue[: len(taken)]
            self._written = upto


def _gathered(parts: Sequence[Mapping[str, Columns]]) -> dict[str, Columns]:
    tables = {table for part in parts for table in part}
    return {
        table: {
            name: np.concatenate([part[table][name] for part in parts if table in part])
            for name in next(part[table] for part in parts if table in part)
        }
        for table in sorted(tables)
    }
