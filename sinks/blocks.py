"""Builds the block of one insert; checks that it is complete, of the right types and in one partition."""

from typing import Any

import numpy as np

from adledger.schemas.tables import PARTITION_CLOCKS, PROTOCOL_COLUMNS, STAMP_COLUMNS, TEXT_COLUMNS
from adledger.sinks.sink import Columns, Stamp

Block = dict[str, Any]
"""Column name -> numpy array of the stored dtype, or a list of lists where each row holds an array."""


def protocol_block(table: str, columns: Columns, stamp: Stamp) -> Block:
    """Return the rows of `columns`, stamped, as they are stored.

    Raises ValueError if a column is missing, unknown, of a different length or does not fit its type, or if the rows
    belong to more than one partition (day of the watermark): ClickHouse would split such an insert.
    """
    stored = PROTOCOL_COLUMNS[table]
    rows = _row_count(table, columns, [name for name in stored if name not in STAMP_COLUMNS])
    stamped = {
        "lane": np.full(rows, stamp.lane, "u2"),
        "batch_no": np.full(rows, stamp.batch_no, "u8"),
        "send_by": np.full(rows, stamp.send_by, "u4"),
        **columns,
    }
    block = {name: _stored(table, name, stamped[name], dtype) for name, dtype in stored.items()}
    _check_one_partition(table, block)
    return block


def text_block(table: str, columns: Columns) -> Block:
    """Return the rows of a table of dimension strings as they are stored. Raises ValueError as `protocol_block` does."""
    stored = TEXT_COLUMNS[table]
    _row_count(table, columns, list(stored))
    return {name: _stored(table, name, columns[name], dtype) for name, dtype in stored.items()}


def row_count(block: Block) -> int:
    """Return the number of rows."""
    return len(next(iter(block.values())))


def _row_count(table: str, columns: Columns, expected: list[str]) -> int:
    if set(columns) != set(expected):
        wrong = sorted(set(columns) ^ set(expected))
        raise ValueError(f"{table}: these columns are missing or unknown: {', '.join(wrong)}")
    counts = {len(columns[name]) for name in expected}
    if len(counts) != 1:
        raise ValueError(f"{table}: columns of different lengths: {sorted(counts)}")
    return counts.pop()


def _stored(table: str, name: str, values: Any, dtype: str) -> Any:
    if dtype.startswith("["):
        return [list(row) for row in values]
    if dtype == "O":
        return np.fromiter((b"" if v is None else v for v in values), object, len(values))
    array = values if isinstance(values, np.ndarray) else np.array(values, object)
    if array.dtype != np.dtype(dtype):
        array = _cast(table, name, array, np.dtype(dtype))
    return np.ascontiguousarray(array)


def _cast(table: str, name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the integers in another width. Raises ValueError where a value does not fit: it must not wrap."""
    integers = all(isinstance(v, int) for v in array) if array.dtype == object else array.dtype.kind in "iub"
    if not integers:
        raise ValueError(f"{table}.{name}: expected integers, not {array.dtype}")
    limits = np.iinfo(dtype)
    if len(array) and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
        raise ValueError(f"{table}.{name}: {array.min()}..{array.max()} does not fit {dtype.name}")
    return array.astype(dtype)


def _check_one_partition(table: str, block: Block) -> None:
    column, units_per_day = PARTITION_CLOCKS[table]
    clock = block[column]
    if len(clock) and clock.min() // units_per_day != clock.max() // units_per_day:
        raise ValueError(
            f"{table}: {column} {clock.min()}..{clock.max()} spans more than one day, and so more than one partition: "
            "the insert would not be atomic"
        )
