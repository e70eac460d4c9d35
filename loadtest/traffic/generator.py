"""The generator: from a model to chunks of records and their ground truth, in log order, in bounded memory.

Any number of processes may share the work: each plans all records (cheap), and fills and renders those of its own
partitions (expensive). So each partition's bytes are the same however the partitions are shared, and the run always ends
with the same record.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adledger.loadtest.traffic.kernels.arrive import DERIVED_MAX, merge_planned, plan_slots, slot_times
from adledger.loadtest.traffic.kernels.fill import fill_rows
from adledger.loadtest.traffic.kernels.keys import KEY_BYTES_MAX
from adledger.loadtest.traffic.kernels.memory import SLACK_BYTES
from adledger.loadtest.traffic.kernels.render import NULL, VALUE_BYTES_MAX, render_rows
from adledger.loadtest.traffic.kernels.shapes import I64, PLANNED, ROW, U8, Records
from adledger.loadtest.traffic.lookup_tables import Lookup
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.recipes import MALFORMED_RECIPES, ODD_RECIPES, RECIPES
from adledger.loadtest.traffic.scenarios import scenario_rows
from adledger.pipeline.log.record_block import RecordBlock

CHUNK_SLOTS = 65_536
"""Slots planned at once: 30 MB of records, which the next chunk overwrites."""

TOPICS = 2

_OTHER_TOPIC = np.array([False, *(recipe.other_topic for recipe in RECIPES)])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one stretch of log time.

    `rows` (ROW) are in log order; `order` sorts them by (topic, partition), then log order; `blocks` are their bytes by
    (topic, partition), in that order, and empty where a chunk was only planned. All of it is valid until the next chunk.
    """

    rows: Records
    order: I64
    blocks: tuple[tuple[int, int, RecordBlock], ...]


class Generator:
    """Generates a model's records, or those in some `partitions`."""

    def __init__(
        self,
        model: TrafficModel,
        *,
        partitions: Collection[int] | None = None,
        chunk_slots: int = CHUNK_SLOTS,
    ) -> None:
        self.model = model
        self._lookup = Lookup(model, malformed_recipes=len(MALFORMED_RECIPES), odd_recipes=len(ODD_RECIPES))
        self._mine = np.zeros(model.partitions, np.uint8)
        self._mine[list(range(model.partitions) if partitions is None else partitions)] = 1
        self._chunk_slots = chunk_slots
        self._values = np.empty(0, np.uint8)
        self._keys = np.empty(0, np.uint8)
        self._scratch = np.empty(KEY_BYTES_MAX + SLACK_BYTES, np.uint8)

    def rows(self) -> Iterator[Chunk]:
        """Yield all chunks without their bytes, for the ground truth."""
        for rows, order in self._filled():
            yield Chunk(rows, order, ())

    def chunks(self) -> Iterator[Chunk]:
        """Yield all chunks with their bytes."""
        for rows, order in self._filled():
            yield Chunk(rows, order, self._rendered(rows, order))

    def _planned(self) -> Iterator[tuple[Records, int]]:
        """Yield chunks of PLANNED records in log order, until the model's events are complete, each with its end.

        The end is a log time: the chunk's records are before it, all later ones are not. A chunk has the records before the
        next chunk's first slot; records that derive from its slots but come later wait in the bucket of their own chunk.
        """
        model, size = self.model, self._chunk_slots
        chunks = -(-model.events // size)
        begins = np.append(
            self._times(0, size, chunks), self._times(model.events, 1, 1)
        )  # and the latest end
        waiting: list[list[Records]] = [[] for _ in range(chunks + 1)]
        left = model.events
        for chunk in range(chunks):
            first = chunk * size
            times = self._times(first, 1, min(size, model.events - first))
            slots = np.empty(len(times), PLANNED)
            derived = np.empty(len(times) * DERIVED_MAX, PLANNED)
            derived = derived[: plan_slots(self._lookup.tables, first, times, slots, derived)]
            last = chunk == chunks - 1
            for part in (slots, derived):
                _sort_into(part, begins, chunk, waiting)
            due = _in_log_order(waiting[chunk] + (waiting[chunk + 1] if last else []))[:left]
            waiting[chunk] = []
            left -= len(due)
            yield due, int(begins[chunk + 1] if left else due["log_time"][-1] + 1)
            if not left:
                return

    def _times(self, first: int, stride: int, count: int) -> I64:
        out = np.empty(count, np.int64)
        slot_times(self._lookup.tables, self._lookup.arrivals, self._lookup.slot_weight, first, stride, out)
        return out

    def _filled(self) -> Iterator[tuple[Records, I64]]:
        """Yield our rows in log order, and their order by (topic, partition)."""
        scripted = scenario_rows(self.model, self._lookup)
        scripted = scripted[self._mine[scripted["partition"]] > 0]
        for planned, end in self._planned():
            rows = np.empty(len(planned), ROW)
            rows = rows[: fill_rows(self._lookup.tables, planned, self._mine, self._scratch, rows)]
            rows["topic"] ^= _OTHER_TOPIC[rows["recipe"]]
            due = int(np.searchsorted(scripted["log_time"], end))
            if due:
                rows = np.concatenate([rows, scripted[:due]])
                rows = rows[np.lexsort((rows["variant"], rows["slot"], rows["log_time"]))]
                scripted = scripted[due:]
            lane = rows["topic"] * np.uint16(self.model.partitions) + rows["partition"]
            yield rows, np.argsort(lane, kind="stable")

    def _rendered(self, rows: Records, order: I64) -> tuple[tuple[int, int, RecordBlock], ...]:
        given, lengths = self._given(rows, order)
        n = len(order)
        size = (n - len(lengths)) * VALUE_BYTES_MAX + len(given)
        self._values = _buffer_for(self._values, size)
        self._keys = _buffer_for(self._keys, n * KEY_BYTES_MAX)
        value_ends, key_ends = self._render(rows, order, given, lengths, self._values, self._keys)
        places = rows["topic"][order].astype(np.int64) << 16 | rows["partition"][order]
        return tuple(_blocks(places, rows["log_time"][order], self._values, value_ends, self._keys, key_ends))

    def _render(
        self, rows: Records, order: I64, given: U8, lengths: I64, values: U8, keys: U8
    ) -> tuple[I64, I64]:
        value_ends, key_ends = np.empty((2, len(order)), np.int64)
        tables, texts = self._lookup.tables, self._lookup.texts
        render_rows(tables, texts, rows, order, given, lengths, values, value_ends, keys, key_ends)
        return value_ends, key_ends

    def _given(self, rows: Records, order: I64) -> tuple[U8, I64]:
        """Return the texts and lengths that recipes produce for the rows that have one, in the order of `order`."""
        special = order[rows["recipe"][order] > 0]
        n = len(special)
        values = np.empty(n * VALUE_BYTES_MAX + SLACK_BYTES, np.uint8)
        keys = np.empty(n * KEY_BYTES_MAX + SLACK_BYTES, np.uint8)
        nothing = np.zeros(0, np.uint8), np.zeros(0, np.int64)
        ends, _ = self._render(rows, special, *nothing, values, keys)
        made: list[bytes | None] = []
        margin_ms = (
            self._lookup.tables.margin_ms
        )  # the actual log time may be later: a future time must stay in the future
        begin = 0
        for row, end in zip(rows[special], ends.tolist(), strict=True):
            good = values[begin:end].tobytes()
            made.append(RECIPES[row["recipe"] - 1].make(good, int(row["log_time"]) + margin_ms))
            begin = end
        texts = b"".join(text for text in made if text is not None) + bytes(SLACK_BYTES)
        lengths = np.array([NULL if text is None else len(text) for text in made], np.int64)
        return np.frombuffer(texts, np.uint8), lengths


def _sort_into(part: Records, begins: I64, chunk: int, waiting: list[list[Records]]) -> None:
    """Put planned records into the buckets of their chunks, except those beyond the end of the last chunk."""
    bucket = np.searchsorted(begins, part["log_time"], side="right") - 1
    for target in range(chunk, min(int(bucket.max(initial=chunk)) + 1, len(waiting))):
        rows = part[bucket == target]
        if len(rows):
            waiting[target].append(rows)


def _in_log_order(parts: list[Records]) -> Records:
    """Return planned records by (log time, slot, variant). Parts of slots are in order, each after the one before."""
    slots = np.concatenate([np.empty(0, PLANNED), *(part for part in parts if not part["variant"][0])])
    derived = np.concatenate([np.empty(0, PLANNED), *(part for part in parts if part["variant"][0])])
    derived = derived[np.lexsort((derived["variant"], derived["slot"], derived["log_time"]))]
    out = np.empty(len(slots) + len(derived), PLANNED)
    merge_planned(derived, slots, out)
    return out


def _buffer_for(buffer: U8, size: int) -> U8:
    return buffer if len(buffer) >= size + SLACK_BYTES else np.empty(size + size // 8 + SLACK_BYTES, np.uint8)


def _blocks(
    places: I64, log_times: I64, values: U8, value_ends: I64, keys: U8, key_ends: I64
) -> Iterator[tuple[int, int, RecordBlock]]:
    """Yield (topic, partition, block) for rows in the order of topic << 16 | partition."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(places)) + 1, [len(places)]])
    value_at = key_at = 0
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if start == end:
            continue
        value_to, values_of = _cut(value_ends[start:end], value_at)
        key_to, keys_of = _cut(key_ends[start:end], key_at)
        block = RecordBlock(
            values[value_at:value_to], values_of, keys[key_at:key_to], keys_of, log_times[start:end]
        )  # fmt: skip
        value_at, key_at = value_to, key_to
        yield int(places[start] >> 16), int(places[start] & 0xFFFF), block


def _cut(ends: I64, begin: int) -> tuple[int, npt.NDArray[np.int64]]:
    """Return where these rows' bytes end, and their ends counted from `begin`."""
    to = int(max(ends.max(initial=NULL), begin))
    return to, np.where(ends == NULL, NULL, ends - begin)
