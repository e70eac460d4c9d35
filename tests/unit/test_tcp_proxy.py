"""The proxy delays, cuts and passes bytes exactly as requested."""

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.lab.kafka_frames import HEARTBEAT, METADATA, OFFSET_COMMIT, KafkaFaults
from adledger.loadtest.lab.tcp_proxy import HOST, Action, Side, TcpProxy


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it receives; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_bytes_pass_unchanged_both_ways_and_the_end_with_them(echo):
    """Bytes come back whole and in order, and when one side closes so does the other."""
    sent = bytes(range(256)) * 4000
    async with TcpProxy(HOST, echo) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        assert proxy.connections == 1
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("side", Side)
async def test_held_bytes_arrive_on_release(echo, side):
    """Held bytes are late, not lost, in either direction."""
    async with TcpProxy(HOST, echo) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        (proxy.requests if side is Side.REQUESTS else proxy.replies)(Action.HOLD)
        writer.write(b"late")
        await proxy.held.wait()
        (proxy.requests if side is Side.REQUESTS else proxy.replies)(Action.PASS)
        proxy.release()
        assert await reader.readexactly(4) == b"late"
        writer.close()


async def test_slow_bytes_arrive_later_and_in_order(echo):
    """A slow piece delays what follows it, and nothing overtakes it."""
    actions = iter([Action.SLOW, Action.PASS])

    class FirstIsSlow:
        def pieces(self, side, data):
            return [(data, Action.PASS if side is Side.REPLIES else next(actions, Action.PASS))]

        def ended(self):
            ends.append(True)

    ends: list[bool] = []
    async with TcpProxy(HOST, echo, gate=FirstIsSlow) as proxy:
        proxy.slow_seconds = 0.05
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        for piece in (b"slow", b"next"):
            writer.write(piece)
            await writer.drain()
        assert await reader.readexactly(8) == b"slownext"
        writer.close()
    assert ends == [True], "a gate's `ended` is called once"


async def test_clients_without_a_server_are_counted(unused_tcp_port):
    """They see a broken connection, as they would without the proxy."""
    async with TcpProxy(HOST, unused_tcp_port) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert (proxy.connections, proxy.refused) == (1, 1)
        writer.close()


async def test_cut_breaks_connections_and_pause_refuses_them(echo):
    """Open connections end at `cut`, new ones at once while paused, and pass again after `resume`."""
    async with TcpProxy(HOST, echo) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.pause()
        proxy.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        refused, other = await asyncio.open_connection(HOST, proxy.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await refused.readexactly(1)
        assert proxy.refused == 1
        proxy.resume()
        again, third = await asyncio.open_connection(HOST, proxy.port)
        third.write(b"y")
        assert await again.readexactly(1) == b"y"
        for open_writer in (writer, other, third):
            open_writer.close()


KEYS = st.sampled_from([METADATA, OFFSET_COMMIT, HEARTBEAT])
ACTIONS = {OFFSET_COMMIT: (Action.DROP, Action.HOLD), HEARTBEAT: (Action.PASS, Action.CUT)}


@given(st.lists(st.tuples(KEYS, st.binary(max_size=40))), st.lists(st.integers(1, 30), min_size=1))
def test_frames_get_the_action_of_their_key(messages, cuts):
    """However bytes arrive, each request and each reply is one piece, unchanged, in order, with its own key's action;
    requests are counted.
    """
    faults = KafkaFaults(keep=frozenset({OFFSET_COMMIT}))
    for key, (requests, replies) in ACTIONS.items():
        faults.set(key, requests=requests, replies=replies)
    gate = faults.gate()
    requests = [
        struct.pack(">ihhi", 8 + len(body), key, 7, number) + body
        for number, (key, body) in enumerate(messages)
    ]
    replies = [struct.pack(">ii", 4 + len(body), number) + body for number, (_, body) in enumerate(messages)]
    for side, sent in ((Side.REQUESTS, requests), (Side.REPLIES, replies)):
        stream, got = b"".join(sent), []
        while stream:
            size = cuts[len(got) % len(cuts)]
            got += gate.pieces(side, stream[:size])
            stream = stream[size:]
        place = 0 if side is Side.REQUESTS else 1
        expected = [ACTIONS.get(key, (Action.PASS, Action.PASS))[place] for key, _ in messages]
        assert got == list(zip(sent, expected, strict=True))
    keys = [key for key, _ in messages]
    assert [faults.count(key) for key in ACTIONS] == [keys.count(key) for key in ACTIONS]
    assert [r.frame for r in faults.kept] == [
        sent[4:] for sent, key in zip(requests, keys, strict=True) if key == OFFSET_COMMIT
    ]
