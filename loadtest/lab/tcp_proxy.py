"""A TCP proxy that injects faults: it drops, holds back, slows or cuts the traffic that it forwards.

    async with TcpProxy("127.0.0.1", 9092) as proxy:   # proxy.address is for clients
        proxy.replies(Action.DROP)                      # no reply reaches the client

Generic over bytes: it decides about *pieces*, by default as much as was read at once. Each connection has a `Gate` that
cuts its bytes into pieces and decides about each; `kafka_frames` has one that knows Kafka's requests and replies.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

HOST = "127.0.0.1"
READ_BYTES = 1 << 16


class Side(Enum):
    """Which way a piece goes."""

    REQUESTS = "client to server"
    REPLIES = "server to client"


class Action(Enum):
    """What the proxy does with a piece."""

    PASS = "goes on"  # noqa: S105 - no password
    DROP = "is dropped; the connection stays"
    HOLD = "waits for `release`, and so does everything after it"
    SLOW = "goes on after `slow_seconds`, and so does everything after it"
    CUT = "is dropped, and the connection is reset both ways"


class Gate(Protocol):
    """Decides what happens to one connection's pieces."""

    def pieces(self, side: Side, data: bytes) -> Iterable[tuple[bytes, Action]]:
        """Return the pieces that this data completes, in order, each with its action."""

    def ended(self) -> None:
        """Handle the end of the connection."""


class TcpProxy:
    """Listens on the loopback, on a port chosen by the kernel, and forwards to one server."""

    def __init__(
        self, host: str, port: int, *, gate: Callable[[], Gate] | None = None, listen_port: int = 0
    ) -> None:
        """`gate` creates each connection's gate; without one, `requests` and `replies` set the action for everything."""
        self._upstream = host, port
        self._gate = gate or (lambda: _Everything(self._actions))
        self._actions = dict.fromkeys(Side, Action.PASS)
        self._listen_port = listen_port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._released = asyncio.Event()
        self._paused = False
        self.connections = 0
        """Accepted so far."""
        self.refused = 0
        """Of these, the ones that could not reach the server."""
        self.slow_seconds = 0.0
        """How long a slow piece waits."""
        self.held = asyncio.Event()
        """Set while a piece is held."""

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "not started"
        return self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        """HOST:PORT for clients, e.g. a broker's advertised listener."""
        return f"{HOST}:{self.port}"

    async def start(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accepted, HOST, self._listen_port)
        return self

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        self._released.set()
        await asyncio.gather(*self._links, return_exceptions=True)

    def requests(self, action: Action) -> None:
        """Set the action for everything that clients send from now on."""
        self._actions[Side.REQUESTS] = action

    def replies(self, action: Action) -> None:
        """Set the action for everything that the server sends from now on."""
        self._actions[Side.REPLIES] = action

    def release(self) -> None:
        """Release the pieces that are held now."""
        self.held.clear()
        self._released.set()
        self._released = asyncio.Event()

    def cut(self) -> None:
        """Reset every connection that is open now; new ones are accepted."""
        for writer in self._writers:
            writer.transport.abort()

    def pause(self) -> None:
        """From now on reset every new connection at once, like a port where nothing listens."""
        self._paused = True

    def resume(self) -> None:
        """Accept connections again."""
        self._paused = False

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio serves each connection in a task"
        self._links.add(task)
        self.connections += 1
        try:
            if self._paused:
                raise ConnectionRefusedError
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            self.refused += 1
            writer.transport.abort()  # as with a server that is down
        else:
            await self._link(reader, writer, server_reader, server_writer)
        finally:
            self._links.discard(task)

    async def _link(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        """Forward both ways until either side ends."""
        both = {writer, server_writer}
        self._writers |= both
        gate = self._gate()
        ways = [
            asyncio.create_task(self._forward(gate, Side.REQUESTS, reader, server_writer)),
            asyncio.create_task(self._forward(gate, Side.REPLIES, server_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            cut = _Cut in [type(error) for error in await asyncio.gather(*ways, return_exceptions=True)]
            for open_writer in both:
                if cut:
                    open_writer.transport.abort()
                open_writer.close()  # what was forwarded is sent first
            self._writers -= both
            gate.ended()

    async def _forward(
        self, gate: Gate, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):  # a side that broke has ended
            while data := await reader.read(READ_BYTES):
                for piece, action in gate.pieces(side, data):
                    if action is Action.CUT:
                        raise _Cut
                    if action is Action.HOLD:
                        released = self._released
                        self.held.set()
                        await released.wait()
                    if action is Action.SLOW:
                        await asyncio.sleep(self.slow_seconds)
                    if action is not Action.DROP:
                        writer.write(piece)
                await writer.drain()


class _Cut(Exception):  # noqa: N818 - not an error but a command
    """The gate's action is CUT."""


class _Everything:
    """Treats everything that was read at once as one piece, and decides by its side alone."""

    def __init__(self, actions: Mapping[Side, Action]) -> None:
        self._actions = actions

    def pieces(self, side: Side, data: bytes) -> Iterable[tuple[bytes, Action]]:
        return [(data, self._actions[side])]

    def ended(self) -> None:
        """Do nothing: it keeps no state."""
