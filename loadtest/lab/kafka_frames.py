"""Kafka's requests and replies as pieces for `tcp_proxy`: counted, with an action for each API key.

    faults = KafkaFaults()
    async with TcpProxy(host, port, gate=faults.gate) as proxy:
        faults.set(OFFSET_COMMIT, replies=Action.HOLD)   # done, but the reply does not arrive
        ...
        assert faults.count(OFFSET_COMMIT) == 1

Clients connect to the broker's *advertised* listener: `LocalBroker.advertised` must name the proxy.
A held reply delays everything after it, as a network does; a dropped one lets later ones pass, which no network does, and
clients treat that as a broken connection.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from adledger.loadtest.lab.tcp_proxy import Action, Side

PRODUCE, FETCH, METADATA = 0, 1, 3
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 11, 12, 13, 14

_SIZE = struct.Struct(">i")
_REQUEST = struct.Struct(">hhi")
"""API key, API version, correlation id."""


@dataclass(frozen=True, slots=True)
class KafkaRequest:
    """A request that went through: its bytes begin with the API key, without the size before it."""

    api_key: int
    api_version: int
    frame: bytes


class KafkaFaults:
    """The action for each kind of request and reply, on every connection of a proxy; and what has gone through."""

    def __init__(self, keep: frozenset[int] = frozenset()) -> None:
        """`keep`: API keys whose requests are kept with all their bytes."""
        self._actions: dict[tuple[Side, int], Action] = {}
        self._seen: Counter[int] = Counter()
        self._keep = keep
        self.kept: list[KafkaRequest] = []

    def set(self, api_key: int, *, requests: Action = Action.PASS, replies: Action = Action.PASS) -> None:
        """Set the actions for requests with this key and for their replies."""
        self._actions[Side.REQUESTS, api_key] = requests
        self._actions[Side.REPLIES, api_key] = replies

    def count(self, api_key: int) -> int:
        """Return how many requests with this key clients have sent, whatever their action."""
        return self._seen[api_key]

    def gate(self) -> "KafkaGate":
        """Return the gate of a new connection."""
        return KafkaGate(self)

    def request(self, request: KafkaRequest) -> Action:
        """Count a request and return its action."""
        self._seen[request.api_key] += 1
        if request.api_key in self._keep:
            self.kept.append(request)
        return self._actions.get((Side.REQUESTS, request.api_key), Action.PASS)

    def reply(self, api_key: int) -> Action:
        """Return the action for the reply to a request with this key."""
        return self._actions.get((Side.REPLIES, api_key), Action.PASS)


class KafkaGate:
    """One connection: cuts it into frames, and matches replies with requests."""

    def __init__(self, faults: KafkaFaults) -> None:
        self._faults = faults
        self._buffers = {side: bytearray() for side in Side}
        self._asked: dict[int, int] = {}

    def pieces(self, side: Side, data: bytes) -> Iterator[tuple[bytes, Action]]:
        """Return whole frames, each with its action."""
        buffer = self._buffers[side]
        buffer += data
        while len(buffer) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(buffer)
            end = _SIZE.size + size
            if len(buffer) < end:
                return
            piece = bytes(buffer[:end])
            del buffer[:end]
            yield piece, self._action(side, piece)

    def ended(self) -> None:
        """Forget unanswered requests."""
        self._asked.clear()

    def _action(self, side: Side, piece: bytes) -> Action:
        if side is Side.REQUESTS:
            api_key, api_version, correlation = _REQUEST.unpack_from(piece, _SIZE.size)
            self._asked[correlation] = api_key
            return self._faults.request(KafkaRequest(api_key, api_version, piece[_SIZE.size :]))
        (correlation,) = _SIZE.unpack_from(piece, _SIZE.size)
        return self._faults.reply(self._asked.pop(correlation))
