"""The settings of every insert: what keeps a block whole, and ends one that stalls."""

from typing import Any

ROWS_PER_BLOCK_MAX = 2**30  # the driver splits larger blocks; none is
STALLED_SECONDS = 5
"""A server that gets no data of an insert for this long ends it, after two or three times as long as measured; KILL QUERY can't
end it while it waits for data, and the server's default is five minutes. A sender sends a block in one go: it was paused, or
its network is cut."""


def insert_settings() -> dict[str, Any]:
    """Return the settings under which driver and server keep a block whole: it becomes one part, or is refused.

    Merges build the bloom filters, which would take a quarter of an insert's CPU.
    """
    return {
        "async_insert": 0,
        "max_insert_threads": 1,
        "max_insert_block_size": ROWS_PER_BLOCK_MAX,
        "min_insert_block_size_rows": 0,
        "min_insert_block_size_bytes": 0,
        "max_partitions_per_insert_block": 1,
        "throw_on_max_partitions_per_insert_block": 1,
        "materialize_skip_indexes_on_insert": 0,
        "receive_timeout": STALLED_SECONDS,
        "poll_interval": 1,
    }
