"""Evaluate: the first class that applies, the reasons beside it, and the money of every event."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.records.columns import Decoded, EventColumns, RecordRefs
from adledger.pipeline.stages.dedupe import Duplicates
from adledger.pipeline.stages.evaluate import evaluate
from adledger.schemas.classes import Class, Reason
from adledger.schemas.wire import PRICE_MICROS_MAX, EventType, Flag, Malformed

CLOCK = 1_767_225_600_000
ALLOWED_LATENESS_MS = 1_000

ROWS = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([0, 1]),
        st.sampled_from([0, 1]),
        st.sampled_from([-300_000, 0, ALLOWED_LATENESS_MS, ALLOWED_LATENESS_MS + 1, 10**9]),
        st.sampled_from(EventType),
        st.integers(0, PRICE_MICROS_MAX),
        st.booleans(),
    ),
    max_size=30,
)


@given(ROWS)
def test_the_first_class_that_fits(rows):
    """It is malformed, duplicate, expired (beyond the allowed lateness) or billable, with exact nanos."""
    n = len(rows)
    columns = EventColumns.zeros(n)
    status, found = np.zeros(n, np.uint8), Duplicates(np.zeros(n, np.uint8), np.zeros(n, np.uint8))
    expected = []
    for i, (malformed, duplicate, conflict, age_ms, kind, price, misrouted) in enumerate(rows):
        if malformed:
            status[i] = Malformed.NOT_JSON
            expected.append((Class.MALFORMED, 0, 0))
            continue
        found.duplicate[i], found.conflict[i] = duplicate, duplicate and conflict
        columns.event_time[i], columns.event_type_code[i] = CLOCK - age_ms, kind
        columns.price_micros[i], columns.flags[i] = price, misrouted << Flag.MISROUTED
        expired = Class.EXPIRED if age_ms > ALLOWED_LATENESS_MS else Class.BILLABLE
        expected.append((
            Class.DUPLICATE if duplicate else expired,
            misrouted << Reason.MISROUTED | (duplicate and conflict) << Reason.DUPLICATE_CONFLICT,
            price * (1_000 if kind == EventType.CLICK else 1),
        ))  # fmt: skip
    none = np.zeros(n, np.int32)
    refs = RecordRefs.of([b""] * n, [None] * n)
    decoded = Decoded(refs, columns, status, none, none, none, none, {})
    verdicts = evaluate(decoded, np.full(n, CLOCK), found, ALLOWED_LATENESS_MS)
    found_verdicts = (verdicts.class_code.tolist(), verdicts.reasons.tolist(), verdicts.money_nanos.tolist())
    assert list(zip(*found_verdicts, strict=True)) == expected
