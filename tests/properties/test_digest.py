"""The digest of a batch's rows is the same in any order, equal to its definition, and changed by any one cell."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.kernels.digest import MULTIPLIER
from adledger.pipeline.stages.digest import ROWS_AT_ONCE, digest
from adledger.schemas.digests import CURRENT, DEFINITIONS, FIRST
from adledger.schemas.tables import PROTOCOL_COLUMNS, STAMP_COLUMNS

DIGESTED = [(number, table) for number, of in DEFINITIONS.items() for table in of.columns]
RELEASED = {1: "6a65512eab80", 2: "862c50831db3"}
"""Definition -> how the SHA-256 of its columns begins. Ledger rows of years ago are checked by it."""
OLD_DIGEST = 7_221_486_269_122_555_655
"""Of two dead letters, as the release before `records` stored it."""


def dtypes(definition: int, table: str) -> dict[str, str]:
    return {name: PROTOCOL_COLUMNS[table][name] for name in DEFINITIONS[definition].columns[table]}


@st.composite
def rows_of(draw, definition: int, table: str) -> list[list[Any]]:
    cells = [
        st.none() | st.binary(max_size=20)
        if dtype == "O"
        else st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        for dtype in dtypes(definition, table).values()
    ]
    return draw(st.lists(st.tuples(*cells).map(list), max_size=5))


def digest_of(definition: int, table: str, rows: list[list[Any]]) -> int:
    columns = {
        name: [row[i] for row in rows] if dtype == "O" else np.array([row[i] for row in rows], dtype)
        for i, (name, dtype) in enumerate(dtypes(definition, table).items())
    }
    return digest(table, columns, definition)


def plainly(definition: int, table: str, rows: list[list[Any]]) -> int:
    """Compute the definition with Python's own integers."""
    import xxhash

    total = 0
    for row in rows:
        number = 0
        for name, cell in zip(DEFINITIONS[definition].columns[table], row, strict=True):
            if DEFINITIONS[definition].unless.get(table) == (name, cell):
                continue
            folded = cell if isinstance(cell, int) else xxhash.xxh64_intdigest(cell or b"")
            number = (number ^ folded % 2**64) * MULTIPLIER % 2**64
        total += number
    return total % 2**64


@pytest.mark.parametrize(("number", "table"), DIGESTED)
@given(data=st.data())
def test_the_kernel_computes_the_definition(number, table, data):
    """Compiled or plain, in any order of rows, it is the same number."""
    rows = data.draw(rows_of(number, table))
    assert digest_of(number, table, rows) == plainly(number, table, rows)
    assert digest_of(number, table, rows[::-1]) == plainly(number, table, rows)


@pytest.mark.parametrize(("number", "table"), DIGESTED)
@given(data=st.data())
def test_any_cell_altered_alters_it(number, table, data):
    """The digest shows any alteration of one cell of one row, in whichever column."""
    rows = data.draw(rows_of(number, table).filter(bool))
    other = data.draw(rows_of(number, table).filter(bool))
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows[0]) - 1))
    before, after = rows[row][column], other[0][column]
    if (before or 0) == (after or 0) or not (before or after):
        return
    altered = [[*r] for r in rows]
    altered[row][column] = after
    assert digest_of(number, table, altered) != digest_of(number, table, rows)


def test_the_current_definition_covers_every_column():
    """A column that is added to a digested table gets a new definition, which covers it."""
    for table, covered in DEFINITIONS[CURRENT].columns.items():
        assert set(covered) == PROTOCOL_COLUMNS[table].keys() - STAMP_COLUMNS.keys(), table


def test_released_definitions_do_not_change():
    """An edited definition would call the rows altered whose digests followed it."""
    for number, begins in RELEASED.items():
        text = json.dumps([DEFINITIONS[number].columns, DEFINITIONS[number].unless], sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest().startswith(begins), number


def test_rows_from_before_a_column_keep_their_digest():
    """Dead letters of one record each have the digest from before the column `records`."""
    old = [[0, 7, 1, 2, 3, b"key", b"value"], [1, 8, 1, 2, 3, None, b""]]
    assert digest_of(FIRST, "dead_letters", [[*row, 1] for row in old]) == OLD_DIGEST


def test_long_batches_are_digested_in_parts():
    """Parts add up, with the rows before and after the cut."""
    n = ROWS_AT_ONCE + 3
    columns = {name: np.arange(n).astype(dtype) for name, dtype in dtypes(CURRENT, "events").items()}
    halves = [{k: v[:100] for k, v in columns.items()}, {k: v[100:] for k, v in columns.items()}]
    assert digest("events", columns) == sum(digest("events", half) for half in halves) % 2**64
    assert digest("events", {k: v[:0] for k, v in columns.items()}) == 0
