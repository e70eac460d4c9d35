"""Roll up: records and money of a batch by publisher, minute, event type, class, currency and book (after close or not)."""

from collections.abc import Mapping

import numpy as np

from adledger.pipeline.kernels.rollup import group
from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.records.columns import I64, U8, Array, EventColumns
from adledger.pipeline.stages.periods import after_close
from adledger.schemas.wire import Flag

Rollup = Mapping[str, Array]
"""Columns of `rollup_minute` (adledger.schemas.tables.ROLLUP_MINUTE) but for clock_day; one row a group."""


def roll_up(
    columns: EventColumns, class_code: U8, money_nanos: I64, secret: SlotSecret = KNOWN_SECRET
) -> Rollup:
    """Return the groups of n decodable events, in order of their first event. `secret` decides no row of it."""
    n = len(columns)
    capacity = 1 << max(4, (2 * n).bit_length())
    first, records, nanos = np.empty(n, np.int64), np.empty(n, np.uint32), np.empty(n, np.int64)
    late = after_close(columns.flags)
    groups = group(
        np.full(capacity, -1, np.int32), secret.slots(capacity), columns.publisher_id, columns.event_time,
        columns.event_type_code, class_code, columns.currency_code, late, money_nanos, first, records, nanos,
    )  # fmt: skip
    first = first[:groups]
    return {
        "publisher_id": columns.publisher_id[first],
        "minute": (columns.event_time[first] // 60_000 * 60).astype(np.uint32),
        "event_type_code": columns.event_type_code[first],
        "class_code": class_code[first],
        "currency_code": columns.currency_code[first],
        "after_close": late[first].astype(np.uint8),
        "records": records[:groups],
        "money_nanos": nanos[:groups],
    }


def roll_up_plain(
    columns: EventColumns, class_code: U8, money_nanos: I64
) -> dict[tuple[int, ...], tuple[int, int]]:
    """Return the same as a dictionary, the plain twin: all columns of a group before `records` -> records, nanos."""
    groups: dict[tuple[int, ...], tuple[int, int]] = {}
    for i in range(len(columns)):
        key = (
            int(columns.publisher_id[i]),
            int(columns.event_time[i]) // 60_000 * 60,
            int(columns.event_type_code[i]),
            int(class_code[i]),
            int(columns.currency_code[i]),
            int(columns.flags[i]) >> Flag.AFTER_CLOSE & 1,
        )
        records, nanos = groups.get(key, (0, 0))
        groups[key] = (records + 1, nanos + int(money_nanos[i]))
    return groups
