"""Digests: one number for all the rows that a batch wrote into a table, kept in the ledger.

Altering a column, or removing or adding a row, changes the digest; ClickHouse computes the same number in SQL (`sql`).
It detects accidents and tampering, but is not a signature: anyone who may write the ledger can also write a digest.
Which columns are covered is a numbered definition (adledger.schemas.digests), which the ledger row names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from adledger.pipeline.kernels.digest import MULTIPLIER, fold
from adledger.schemas.digests import CURRENT, DEFINITIONS
from adledger.schemas.tables import PROTOCOL_COLUMNS

DIGESTED = tuple(DEFINITIONS[CURRENT].columns)
"""The tables that have a digest. rollup_minute follows from events."""

ROWS_AT_ONCE = 8_192
"""Rows whose digests fit in the first-level cache while every column is folded in."""

_TIMES = {"event_time", "log_time", "lane_clock"}


def digest(table: str, columns: Mapping[str, Any], definition: int = CURRENT) -> int:
    """Return the digest of rows of a table (columns as they are inserted), 0 <= digest < 2^64; order doesn't matter."""
    covered = DEFINITIONS[definition]
    later, unchanged = covered.unless.get(table, ("", 0))
    names = [name for name in covered.columns[table] if name != later]
    arrays = [_numbers(columns[name], PROTOCOL_COLUMNS[table][name]) for name in names]
    total = 0
    for start in range(0, len(arrays[0]), ROWS_AT_ONCE):
        digests = np.zeros(min(ROWS_AT_ONCE, len(arrays[0]) - start), np.uint64)
        for array in arrays:
            fold(digests, array[start : start + ROWS_AT_ONCE])
        if later:
            values = np.asarray(columns[later])[start : start + ROWS_AT_ONCE]
            changed = values != unchanged
            folded = digests[changed]
            fold(folded, values[changed])
            digests[changed] = folded
        total += int(digests.sum(dtype=np.uint64))
    return total % 2**64


def sql(table: str, definition: int = CURRENT) -> str:
    """Return the same as an expression of ClickHouse over a group of rows."""
    covered = DEFINITIONS[definition]
    later, unchanged = covered.unless.get(table, ("", 0))
    row = "toUInt64(0)"
    for name in covered.columns[table]:
        is_text = PROTOCOL_COLUMNS[table][name] == "O"
        column = f"xxHash64({name})" if is_text else f"toUInt64({_milliseconds(name)})"
        folded = f"bitXor({row}, {column}) * toUInt64({MULTIPLIER})"
        row = folded if name != later else f"if({name} = {unchanged}, {row}, {folded})"
    return f"sumWithOverflow({row})"


def _numbers(values: Any, dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "O":
        return np.fromiter((xxhash.xxh64_intdigest(v or b"") for v in values), np.uint64, len(values))
    return np.ascontiguousarray(values, dtype)


def _milliseconds(name: str) -> str:
    return f"toUnixTimestamp64Milli({name})" if name in _TIMES else name
