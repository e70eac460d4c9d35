"""Inserts and their answers, recognised in the bytes of ClickHouse's native protocol, for `adledger.loadtest.lab.tcp_proxy`.

A worker's insert is recognised by its query id (`adledger/DATABASE/LANE/BATCH/TABLE/UUID`), and is *under way* from when
its rows are sent until its last answer. Nothing is compressed between worker and server on one machine.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from adledger.loadtest.lab.tcp_proxy import Action, Side

_QUERY_ID = re.compile(rb"adledger/[A-Za-z0-9_]+/(\d+)/(\d+)/([a-z_]+)/[0-9a-f-]{36}")
_DATA, _EXCEPTION, _PROGRESS, _END_OF_STREAM = 1, 2, 3, 5
_PROGRESS_NUMBERS = 5
"""Rows, bytes, rows to read; rows and bytes written: what the server sends to a driver of this revision."""
_CLOCK = b"SELECT toUnixTimestamp(now())"


@dataclass(frozen=True, slots=True)
class Insert:
    """One insert of a batch into one table."""

    lane: int
    batch_no: int
    table: str

    def __str__(self) -> str:
        return f"{self.table} of lane {self.lane}, batch {self.batch_no}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An insert that the server refused, with its error code."""

    insert: Insert
    code: int


class ClickHouseFaults:
    """The actions for inserts and their answers, on every connection of a proxy; and the inserts under way."""

    def __init__(self) -> None:
        self._gates: set[ClickHouseGate] = set()
        self._armed: tuple[str, Action] | None = None
        self._hold: str | None = None
        self.struck: list[Insert] = []
        """Inserts that the server had completed when their answer was struck."""
        self.held: list[Insert] = []
        """Inserts that were held back before the server had a byte of them."""
        self.refused: list[Refusal] = []
        """Inserts that the server refused, in the order of its answers."""
        self.slow = False
        """Whether every insert is slow on its way to the server."""
        self.clock_ahead_seconds = 0
        """How far ahead the server's clock appears in answers to queries for the time."""

    def gate(self) -> "ClickHouseGate":
        """Return the gate of a new connection."""
        gate = ClickHouseGate(self)
        self._gates.add(gate)
        return gate

    def ended(self, gate: "ClickHouseGate") -> None:
        """Forget a connection: nothing is under way on it any more."""
        self._gates.discard(gate)

    def strike_next(self, table: str, action: Action) -> None:
        """Strike the answer to the next completed insert into a table, once."""
        self._armed = (table, action)

    def hold_next(self, table: str | None) -> None:
        """Hold back the next insert into a table, once; it goes on when the proxy releases it. None: no insert."""
        self._hold = table

    def under_way(self) -> set[Insert]:
        """Return the inserts whose rows were sent and whose answer has not come. From any thread."""
        return {gate.insert for gate in tuple(self._gates) if gate.insert is not None and gate.rows_sent}

    def asked(self, insert: Insert) -> Action:
        """Return the action for the request of an insert."""
        if self._hold == insert.table:
            self._hold = None
            self.held.append(insert)
            return Action.HOLD
        return Action.SLOW if self.slow else Action.PASS

    def answered(self, insert: Insert) -> Action:
        """Return the action for the answer that reports an insert as done."""
        if self._armed is None or self._armed[0] != insert.table:
            return Action.PASS
        action, self._armed = self._armed[1], None
        self.struck.append(insert)
        return action


class ClickHouseGate:
    """One connection: tracks its current insert, and when that is done."""

    def __init__(self, faults: ClickHouseFaults) -> None:
        self._faults = faults
        self.insert: Insert | None = None
        self.rows_sent = False

    def pieces(self, side: Side, data: bytes) -> Iterator[tuple[bytes, Action]]:
        """Return the data unchanged, with its action."""
        if side is Side.REPLIES:
            yield data, self._reply(data)
            return
        action = Action.PASS
        if found := _QUERY_ID.search(data):
            lane, batch_no, table = found.groups()
            self.insert, self.rows_sent = Insert(int(lane), int(batch_no), table.decode()), False
            action = self._faults.asked(self.insert)
        elif self.insert is not None:
            self.rows_sent = True
        yield self._at_its_time(data), action

    def ended(self) -> None:
        """Forget what was under way."""
        self._faults.ended(self)

    def _at_its_time(self, data: bytes) -> bytes:
        """Return the data, where a query for the time is changed so that the clock appears ahead."""
        ahead = self._faults.clock_ahead_seconds
        return data.replace(_text(_CLOCK), _text(b"%s + %d" % (_CLOCK, ahead))) if ahead else data

    def _reply(self, data: bytes) -> Action:
        if self.insert is None or not self.rows_sent:
            return Action.PASS
        packet = _behind_progress(data)
        kind = packet[0] if packet else _PROGRESS
        if kind == _DATA:  # the columns that it wants: what was sent until now was the query
            self.rows_sent = False
        if kind not in {_EXCEPTION, _END_OF_STREAM}:
            return Action.PASS
        insert, self.insert = self.insert, None
        if kind == _END_OF_STREAM:
            return self._faults.answered(insert)
        self._faults.refused.append(Refusal(insert, int.from_bytes(packet[1:5], "little", signed=True)))
        return Action.PASS


def _text(text: bytes) -> bytes:
    """Return a short text in the protocol's form: its length in one byte, then the text."""
    assert len(text) < 128, "its length would be two bytes"
    return bytes([len(text)]) + text


def _behind_progress(data: bytes) -> bytes:
    """Return the data after all progress packets."""
    at = 0
    while at < len(data) and data[at] == _PROGRESS:
        at += 1
        for _ in range(_PROGRESS_NUMBERS):
            while at < len(data) and data[at] & 0x80:
                at += 1
            at += 1
    return data[at:]
