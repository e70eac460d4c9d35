"""Roll up: the hash aggregation equals a dictionary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.records.columns import EventColumns
from adledger.pipeline.stages.rollup import roll_up, roll_up_plain
from adledger.schemas.tables import ROLLUP_MINUTE
from adledger.schemas.wire import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, PRICE_MICROS_MAX, Flag

TIMES = (
    st.sampled_from([EVENT_TIME_MS_MIN, EVENT_TIME_MS_MIN + 59_999, EVENT_TIME_MS_MIN + 60_000])
    | st.just(EVENT_TIME_MS_MAX - 1)
    | st.integers(EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX - 1)
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2**32 - 1]) | st.integers(0, 2**32 - 1),
        TIMES,
        st.integers(1, 2),
        st.integers(1, 6),
        st.sampled_from([0, 1, 14_313, 65_535]),
        st.integers(0, PRICE_MICROS_MAX * 1_000),
        st.sampled_from([0, 1 << Flag.AFTER_CLOSE, 0xFFFF, 0xFFFF - (1 << Flag.AFTER_CLOSE)]),
    ),
    max_size=80,
)
KEY = ("publisher_id", "minute", "event_type_code", "class_code", "currency_code", "after_close")


@given(EVENTS)
def test_it_equals_the_dictionary(events):
    """Groups and sums are the same, each group once, in order of its first event, in the table's own types."""
    columns = EventColumns.zeros(len(events))
    places = {"publisher_id": 0, "event_time": 1, "event_type_code": 2, "currency_code": 4, "flags": 6}
    for name, i in places.items():
        getattr(columns, name)[:] = [event[i] for event in events]
    class_code = np.array([event[3] for event in events], np.uint8)
    money = np.array([event[5] for event in events], np.int64)

    rollup = roll_up(columns, class_code, money)

    keys = list(zip(*(rollup[name].tolist() for name in KEY), strict=True))
    sums = zip(rollup["records"].tolist(), rollup["money_nanos"].tolist(), strict=True)
    plain = roll_up_plain(columns, class_code, money)
    assert list(zip(keys, sums, strict=True)) == list(plain.items())
    assert {name: v.dtype.str[1:] for name, v in rollup.items()} == {
        name: dtype for name, dtype in ROLLUP_MINUTE.items() if name != "clock_day"
    }
