"""Threads and connections of the sink: bounded, never shared, dropped after a failure."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from adledger.sinks.pool import ClientPool


class _Client:
    """A fake connection that records whether it was aborted, closed, or used by two callers at once."""

    def __init__(self) -> None:
        self.timeout_seconds = 0.0
        self.gone = threading.Event()
        self.closed = threading.Event()

    def abort(self) -> None:
        self.gone.set()

    def disconnect(self) -> None:
        self.closed.set()


@pytest.fixture
def made() -> list[_Client]:
    return []


@pytest.fixture
def pool(made: list[_Client]) -> ClientPool:
    def make() -> _Client:
        made.append(_Client())
        return made[-1]

    return ClientPool(make, 2)  # type: ignore[arg-type]


async def test_a_connection_is_used_again(pool: ClientPool, made: list[_Client]) -> None:
    """Calls one after the other need one connection, each with its own timeout."""
    assert [await pool.run(lambda c: c.timeout_seconds, seconds) for seconds in (3, 4)] == [3, 4]
    assert len(made) == 1
    await pool.close()
    assert made[0].closed.is_set()


async def test_concurrent_calls_never_share_a_connection(pool: ClientPool, made: list[_Client]) -> None:
    """Two run side by side, and a third waits for its turn."""
    both = threading.Barrier(2)

    def call(client: object) -> object:
        both.wait()
        return client

    clients = await asyncio.gather(*(pool.run(call) for _ in range(4)))
    assert len({id(c) for c in clients[:2]}) == 2
    await pool.close()


async def test_a_connection_that_failed_is_dropped(pool: ClientPool, made: list[_Client]) -> None:
    """The caller gets the error, and the next call another connection."""

    def fail(client: object) -> None:
        raise OSError

    with pytest.raises(OSError):
        await pool.run(fail)
    await pool.run(lambda client: None)
    assert len(made) == 2
    assert made[0].closed.is_set()
    await pool.close()


async def test_a_cancelled_call_is_cut_off(pool: ClientPool, made: list[_Client]) -> None:
    """Its connection is shut down immediately, which ends its thread, and then closed and not used again."""
    started = threading.Event()

    def call(client: _Client) -> None:
        started.set()
        client.gone.wait()

    task = asyncio.create_task(pool.run(call))  # type: ignore[arg-type]
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(made[0].closed.wait)
    await pool.run(lambda client: None)
    assert len(made) == 2
    await pool.close()


async def test_a_stream_that_ends_gives_its_connection_back(pool: ClientPool, made: list[_Client]) -> None:
    """All blocks arrive in order; then the connection serves other calls."""
    assert [n async for n in pool.stream(lambda c: iter([1, 2, 3]))] == [1, 2, 3]
    await pool.run(lambda client: None)
    assert len(made) == 1
    await pool.close()


async def test_a_stream_that_is_left_is_cut_off(pool: ClientPool, made: list[_Client]) -> None:
    """The rest is not read: the connection is shut down and closed."""

    def endless(client: _Client) -> Iterator[int]:
        while not client.gone.is_set():
            yield 1
        raise OSError

    stream = pool.stream(endless)  # type: ignore[arg-type]
    await anext(stream)
    await stream.aclose()
    await asyncio.to_thread(made[0].closed.wait)
    await pool.close()


async def test_an_error_in_a_stream_reaches_its_reader(pool: ClientPool, made: list[_Client]) -> None:
    """An error in the middle is raised after the blocks before it."""

    def broken(client: object) -> Iterator[int]:
        yield 1
        raise OSError

    stream = pool.stream(broken)
    assert await anext(stream) == 1
    with pytest.raises(OSError):
        await anext(stream)
    await pool.close()


async def test_a_burst_of_calls_leaves_no_more_connections_than_threads(
    pool: ClientPool, made: list[_Client]
) -> None:
    """Calls that waited their turn leave no extra connections open."""
    await asyncio.gather(*(pool.run(lambda client: None) for _ in range(10)))
    assert sum(not client.closed.is_set() for client in made) == 2
    await pool.close()
    assert all(client.closed.is_set() for client in made)
