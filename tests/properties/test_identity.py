"""Dedupe keys and fingerprints: kernels equal their plain twins, and change only with the columns that they cover."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from adledger.pipeline.records.columns import EventColumns
from adledger.pipeline.stages.identity import FINGERPRINTED, identity, plain_fingerprint, plain_key
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.wire import EventType


@st.composite
def event_columns(draw, rows_min=0, rows_max=5):
    n = draw(st.integers(rows_min, rows_max))
    columns = {name: draw(npst.arrays(dtype, n)) for name, dtype in EVENT_DTYPES.items()}
    columns["event_time"] = np.abs(columns["event_time"] % 2**42)
    columns["event_type_code"] = columns["event_type_code"] % 2 + 1
    return EventColumns(**{name: column.astype(EVENT_DTYPES[name]) for name, column in columns.items()})


@given(event_columns())
def test_kernels_equal_their_twins(columns):
    """Law: each row's key and fingerprint are the plain twins', in u64 and u32."""
    keys, sources, fingerprints = identity(columns)
    assert (keys.dtype, sources.dtype, fingerprints.dtype) == (np.uint64, np.uint64, np.uint32)
    rows = range(len(columns))
    codes, publishers, hashes = columns.event_type_code, columns.publisher_id, columns.id_hash
    assert keys.tolist() == [plain_key(int(codes[i]), int(publishers[i]), int(hashes[i])) for i in rows]
    clicks = (codes == EventType.CLICK).tolist()
    assert sources.tolist() == [2 * int(publishers[i]) + clicks[i] for i in rows]
    values = [[int(getattr(columns, name)[i]) for name in FINGERPRINTED] for i in rows]
    assert fingerprints.tolist() == [plain_fingerprint(tuple(row)) for row in values]


@given(event_columns(1, 1), st.sampled_from(list(EVENT_DTYPES)))
def test_numbers_cover_their_columns_and_no_others(columns, name):
    """Law: changing one column changes the key or the fingerprint exactly where it is covered."""
    key, _, fingerprint = identity(columns)
    column = getattr(columns, name)
    column[0] = 3 - column[0] if name == "event_type_code" else column[0] ^ 1
    new_key, _, new_fingerprint = identity(columns)
    assert (new_key[0] != key[0]) == (name in {"event_type_code", "publisher_id", "id_hash"})
    assert (new_fingerprint[0] != fingerprint[0]) == (name in FINGERPRINTED)


def test_read_only_and_strided_columns():
    """Law: the memory layout of the arrays does not matter (blocks from ClickHouse are read-only views)."""
    columns = EventColumns.zeros(8)
    columns.id_hash[:] = np.arange(8)
    strided = columns.take(slice(None, None, 2))
    for name in EVENT_DTYPES:
        getattr(strided, name).flags.writeable = False
    assert identity(strided)[0].tolist() == identity(columns)[0][::2].tolist()
