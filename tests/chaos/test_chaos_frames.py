"""Parsing ClickHouse's bytes: which insert is under way, and whose answer is dropped."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.lab.clickhouse_frames import ClickHouseFaults, ClickHouseGate, Insert, Refusal
from adledger.loadtest.lab.tcp_proxy import Action, Side
from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.sinks.embedded import packets
from adledger.sinks.queries import SERVER_TIME, insert_id_prefix

INSERTS = st.builds(Insert, st.integers(0, 99), st.integers(1, 10**6), st.sampled_from(PROTOCOL_TABLES))
PROGRESS = st.lists(
    st.builds(
        packets.progress, st.tuples(*[st.integers(0, 2**40)] * 2), st.integers(0, 2**40),
        st.tuples(*[st.integers(0, 2**40)] * 2),
    ), max_size=3,
)  # fmt: skip
COLUMNS = packets.DATA_HEAD + b"\1\0\2\xff\xff\xff\xff\0 columns that end in \5"


def query_of(insert: Insert) -> bytes:
    query_id = f"{insert_id_prefix('a_db', insert.lane)}{insert.batch_no}/{insert.table}/{UUID(int=7)}"
    return b"\1" + bytes([len(query_id)]) + query_id.encode() + b" INSERT ..."


def passes(gate: ClickHouseGate, side: Side, data: bytes) -> Action:
    [(piece, action)] = gate.pieces(side, data)
    assert piece == data, "nothing is changed"
    return action


def refusal(code: int) -> bytes:
    return b"\2" + code.to_bytes(4, "little") + b"\3DB::\0 and what it says"


def until_rows_are_sent(gate: ClickHouseGate, insert: Insert) -> None:
    for side, data in (
        (Side.REQUESTS, query_of(insert)), (Side.REQUESTS, b"\2 no external tables"), (Side.REPLIES, COLUMNS),
        (Side.REQUESTS, b"\2 rows"),
    ):  # fmt: skip
        assert passes(gate, side, data) is Action.PASS


@given(INSERTS, PROGRESS)
def test_an_insert_is_under_way_from_its_rows_to_its_answer(insert: Insert, progress: list[bytes]) -> None:
    """Progress is not an answer, whatever its numbers; the end of the stream is, after progress or alone."""
    faults = ClickHouseFaults()
    gate = faults.gate()
    assert passes(gate, Side.REQUESTS, query_of(insert)) is Action.PASS
    assert faults.under_way() == set()
    until_rows_are_sent(gate, insert)
    for packet in progress:
        assert passes(gate, Side.REPLIES, packet) is Action.PASS
        assert faults.under_way() == {insert}
    assert passes(gate, Side.REPLIES, b"".join(progress) + packets.END_OF_STREAM) is Action.PASS
    assert faults.under_way() == set()


@given(st.lists(INSERTS, min_size=1, max_size=6), st.sampled_from(PROTOCOL_TABLES))
def test_one_answer_is_dropped(inserts: list[Insert], table: str) -> None:
    """It is that of the first insert into the table that the server has done; none before, none after."""
    faults = ClickHouseFaults()
    gate = faults.gate()
    faults.strike_next(table, Action.CUT)
    actions = []
    for insert in inserts:
        until_rows_are_sent(gate, insert)
        actions.append(passes(gate, Side.REPLIES, packets.END_OF_STREAM))
    into = [insert for insert in inserts if insert.table == table]
    assert faults.struck == into[:1]
    assert [a is Action.CUT for a in actions].count(True) == len(into[:1])
    assert not into or actions[inserts.index(into[0])] is Action.CUT


def test_a_refusal_is_an_answer() -> None:
    """A refused insert is no longer under way, and nothing is dropped, since it was not done."""
    faults = ClickHouseFaults()
    gate, insert = faults.gate(), Insert(0, 1, "events")
    faults.strike_next("events", Action.CUT)
    until_rows_are_sent(gate, insert)
    assert passes(gate, Side.REPLIES, refusal(243)) is Action.PASS
    assert (faults.under_way(), faults.struck) == (set(), [])
    assert faults.refused == [Refusal(insert, 243)]


@given(st.lists(INSERTS, min_size=1, max_size=6), st.sampled_from(PROTOCOL_TABLES))
def test_one_insert_is_held_back(inserts: list[Insert], table: str) -> None:
    """The first into the table is held from its first byte: the server learns nothing of it before the release."""
    faults = ClickHouseFaults()
    faults.hold_next(table)
    actions = [passes(faults.gate(), Side.REQUESTS, query_of(insert)) for insert in inserts]
    into = [insert for insert in inserts if insert.table == table]
    assert faults.held == into[:1]
    assert [insert for insert, action in zip(inserts, actions, strict=True) if action is Action.HOLD] == into[
        :1
    ]


@given(INSERTS)
def test_only_inserts_are_slowed(insert: Insert) -> None:
    """Rows and answers pass at their own speed."""
    faults = ClickHouseFaults()
    gate = faults.gate()
    faults.slow = True
    assert passes(gate, Side.REQUESTS, query_of(insert)) is Action.SLOW
    assert passes(gate, Side.REPLIES, COLUMNS) is Action.PASS
    assert passes(gate, Side.REQUESTS, b"\2 rows") is Action.PASS
    faults.slow = False
    assert passes(gate, Side.REQUESTS, query_of(insert)) is Action.PASS


def test_a_connection_that_ended_has_nothing_under_way() -> None:
    """What a dead worker had sent is forgotten with its connection."""
    faults = ClickHouseFaults()
    gate = faults.gate()
    until_rows_are_sent(gate, Insert(0, 1, "events"))
    gate.ended()
    assert faults.under_way() == set()


def test_the_clock_is_ahead_for_the_sinks_query() -> None:
    """The query that the sink reads the time with gets the seconds added; as a short string, it keeps a right length."""
    faults = ClickHouseFaults()
    faults.clock_ahead_seconds = 40
    asked = bytes([len(SERVER_TIME)]) + SERVER_TIME.encode()
    [(sent, action)] = faults.gate().pieces(Side.REQUESTS, b"before" + asked + b"behind")
    moved = f"{SERVER_TIME} + 40".encode()
    assert (sent, action) == (b"before" + bytes([len(moved)]) + moved + b"behind", Action.PASS)
