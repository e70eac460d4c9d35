"""What the settings will demand of ClickHouse and of this machine's memory. Pure."""

from collections.abc import Iterator

from adledger.pipeline.findings import Finding
from adledger.pipeline.lanes.worker import INSERTS_PER_BATCH, SLOTS_BEYOND_THREADS
from adledger.pipeline.settings import MIB, Settings

EVENT_BYTES = 300
"""Columns of one event in a batch under way: what was decoded, what was evaluated, and the block to insert."""
DEDUPE_BYTES = 80
"""The most that one event of the dedupe window takes (adledger.pipeline.stages.dedupe)."""
PROCESS_BYTES = 400 * MIB
"""Python, numba, and compiled kernels."""
MEMORY_SHARE_MAX = 0.8


def inserts_per_second(settings: Settings, lanes: int) -> float:
    """Return how many inserts a second all lanes make when each has something in every batch's time."""
    return lanes * INSERTS_PER_BATCH * 1000 / settings.batch_age_ms_max


def memory_bytes(settings: Settings, lanes: int, window_events: int) -> int:
    """Return what a worker that has all lanes holds at most; `window_events` are those of the dedupe window."""
    full = min(lanes, settings.cpu_threads + SLOTS_BEYOND_THREADS)
    batch = settings.batch_bytes_max + settings.batch_rows_max * EVENT_BYTES
    fetched = lanes * len(settings.topics) * settings.fetch_bytes_max
    return PROCESS_BYTES + full * batch + fetched + window_events * DEDUPE_BYTES


def plan(
    settings: Settings, lanes: int, workers: int, window_events: int, memory_bytes_here: int
) -> Iterator[Finding]:
    """Yield where settings, lanes and machine don't fit. `workers` are those of the group now, at least this one."""
    wanted = inserts_per_second(settings, lanes)
    room = settings.inserts_per_second_max * max(workers, 1)
    if wanted > room:
        age = round(lanes * INSERTS_PER_BATCH * 1000 / room)
        yield Finding(
            f"{lanes} lanes x {INSERTS_PER_BATCH} tables / {settings.batch_age_ms_max} ms are {wanted:,.0f} inserts a "
            f"second, and {max(workers, 1)} x inserts_per_second_max = {room}: batches wait and grow older than set",
            f"start {-(-int(wanted) // settings.inserts_per_second_max)} workers, or --set batch_age_ms_max={age}",
            advice=True,
        )
    held = memory_bytes(settings, lanes, window_events)
    if held > memory_bytes_here * MEMORY_SHARE_MAX:
        yield Finding(
            f"a worker with all {lanes} lanes may hold {held / MIB:,.0f} MiB, and this machine gives it "
            f"{memory_bytes_here / MIB:,.0f} MiB",
            "start more workers on other machines, or lower batch_bytes_max, batch_rows_max, fetch_bytes_max or "
            "dedupe_window_hours",
            advice=True,
        )
