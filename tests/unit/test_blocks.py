"""A block is exactly what is stored, or an error: no value changes on the way into it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.schemas.tables import PROTOCOL_COLUMNS, ROLLUP_MINUTE
from adledger.sinks.blocks import protocol_block, row_count, text_block
from adledger.sinks.ledger import ledger_columns, ledger_entry
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import entry, events

STAMP = Stamp(65_535, 2**64 - 1, 2**32 - 1)


@given(
    st.sampled_from(list(ROLLUP_MINUTE)),
    st.lists(st.integers(-(2**65), 2**65), min_size=1, max_size=3),
    st.booleans(),
)
def test_a_value_is_stored_unchanged_or_refused(name: str, values: list[int], as_array: bool) -> None:
    """Integers that fit the column's type are in the block unchanged; others are refused and never wrap."""
    columns: dict[str, Any] = {column: [0] * len(values) for column in ROLLUP_MINUTE}
    columns[name] = np.array(values, object) if as_array else values
    limits = np.iinfo(ROLLUP_MINUTE[name])
    fits = all(limits.min <= value <= limits.max for value in values)
    one_day = name != "clock_day" or len({value // 86_400 for value in values}) == 1
    if fits and one_day:
        block = protocol_block("rollup_minute", columns, STAMP)
        assert block[name].tolist() == values
    else:
        with pytest.raises(ValueError, match="rollup_minute"):
            protocol_block("rollup_minute", columns, STAMP)


def test_a_block_has_the_tables_columns_in_order_with_the_stamp() -> None:
    """Columns have their stored dtypes and are contiguous, and every row has one stamp."""
    block = protocol_block("events", events(10), STAMP)
    assert {name: values.dtype.str[1:] for name, values in block.items()} == PROTOCOL_COLUMNS["events"]
    assert all(values.flags.c_contiguous for values in block.values())
    assert list(block) == list(PROTOCOL_COLUMNS["events"])
    assert row_count(block) == 10
    assert (block["lane"] == 65_535).all()
    assert (block["batch_no"] == 2**64 - 1).all()


def test_columns_that_fit_are_not_copied() -> None:
    """A batch is tens of megabytes, and its arrays are sent without a copy."""
    columns = events(10)
    block = protocol_block("events", columns, STAMP)
    assert all(np.shares_memory(block[name], columns[name]) for name in columns)


@pytest.mark.parametrize("values", [[0.0], [None], ["1"], [b"1"]])
def test_floats_are_refused(values: list[Any]) -> None:
    """Nothing is converted: a float in a column of integers is a bug."""
    with pytest.raises(ValueError, match="expected integers"):
        text_block("pages", {"page_hash": values, "text": [b""]})


def test_a_ledger_entry_round_trips() -> None:
    """No field is lost between the entry and its columns."""
    block = protocol_block("ledger", ledger_columns(entry(3, 4)), Stamp(3, 4, 5))
    assert ledger_entry({name: values[0] for name, values in block.items()}) == entry(3, 4)
