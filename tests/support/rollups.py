"""Rollup rows and messages for tests of the control path."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from adledger.pipeline.control.rollups_message import COLUMNS, RollupsMessage, split
from adledger.schemas.classes import Class
from adledger.schemas.wire import EventType

MINUTE = 29_000_000 * 60  # seconds since the epoch
EVENT_CLASSES = [Class.BILLABLE, Class.DUPLICATE, Class.GIVT, Class.SIVT, Class.EXPIRED]

Row = tuple[int, int, int, int, int, int, int]


def rows(minutes: st.SearchStrategy[int], publishers: st.SearchStrategy[int]) -> st.SearchStrategy[Row]:
    """Return rows as `roll_up` makes them, in the order of COLUMNS."""
    return st.tuples(
        publishers,
        minutes,
        st.sampled_from([int(t) for t in EventType]),
        st.sampled_from([int(c) for c in EVENT_CLASSES]),
        st.integers(0, 26**3),
        st.integers(1, 1 << 20),
        st.integers(0, 2**63 - 1),
    )


def columns_of(found: list[Row]) -> dict[str, Any]:
    """Columns of rows."""
    return {
        name: np.array([row[i] for row in found], dtype) for i, (name, dtype) in enumerate(COLUMNS.items())
    }


def rows_of(message: RollupsMessage) -> list[Row]:
    """Rows of a message."""
    return list(zip(*(message.rollup[name].tolist() for name in COLUMNS), strict=True))


def many_rows(count: int, seed: int = 1) -> dict[str, Any]:
    """Return columns of rows that hardly compress."""
    rng = np.random.default_rng(seed)
    return {
        "publisher_id": rng.integers(0, 2**32, count, "u4"),
        "minute": (MINUTE - rng.integers(0, 60, count) * 60).astype("u4"),
        "event_type_code": rng.integers(1, 3, count, "u1"),
        "class_code": rng.integers(1, 6, count, "u1"),
        "currency_code": rng.integers(0, 26**3, count, "u2"),
        "records": rng.integers(1, 2**32, count, "u4"),
        "money_nanos": rng.integers(0, 2**63 - 1, count, "i8"),
    }


def message(lane: int, batch_no: int, found: list[Row], clock_after: int, epoch: str = "e") -> RollupsMessage:
    """One message of a few rows."""
    (only,) = split(epoch, lane, batch_no, clock_after, columns_of(found))
    return only
