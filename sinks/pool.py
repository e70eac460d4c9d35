"""Runs blocking clients for an event loop: a bounded number of threads, and for each call a connection of its own."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from adledger.sinks.connection import READ_TIMEOUT_SECONDS, Client

T = TypeVar("T")


class ClientPool:
    """Runs calls of clients on at most `size` threads; calls beyond that wait their turn.

    After a failed call its connection is closed and dropped. If the task of a call is cancelled, the connection is
    closed at once, and what the server does with the data that it has received is unknown.
    """

    def __init__(self, make: Callable[[], Client], size: int) -> None:
        self._make = make
        self._size = size
        self._idle: list[Client] = []
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="clickhouse")

    async def run(self, call: Callable[[Client], T], timeout_seconds: float = READ_TIMEOUT_SECONDS) -> T:
        """Return the call's result. Each of its waits for the server is bounded by `timeout_seconds`."""
        client = self._take(timeout_seconds)
        future = self._threads.submit(call, client)
        try:
            result = await asyncio.wrap_future(future)
        except BaseException:
            self._drop(client, future)
            raise
        finally:
            # The error's traceback refers to this frame, and the future to the error. With a reference to the future, this
            # frame would complete a cycle: a batch's columns would stay until garbage collection, which workers put off.
            del future, call
        self._give_back(client)
        return result

    async def stream(self, call: Callable[[Client], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Yield what the call's iterator yields, one item ahead of the consumer."""
        client = self._take(READ_TIMEOUT_SECONDS)
        items = call(client)
        ahead: Future[T | None] = self._threads.submit(next, items, None)
        try:
            while (item := await asyncio.wrap_future(ahead)) is not None:
                ahead = self._threads.submit(next, items, None)
                yield item
        except BaseException:
            self._drop(client, ahead)
            raise
        finally:
            del ahead, items  # no cycle, as above
        self._give_back(client)

    async def close(self) -> None:
        """Close the connections when the calls under way have ended."""
        await asyncio.to_thread(self._threads.shutdown)
        while self._idle:
            self._idle.pop().disconnect()

    def _take(self, timeout_seconds: float) -> Client:
        client = self._idle.pop() if self._idle else self._make()
        client.timeout_seconds = timeout_seconds
        return client

    def _give_back(self, client: Client) -> None:
        if len(self._idle) < self._size:
            self._idle.append(client)
        else:
            client.disconnect()

    def _drop(self, client: Client, future: "Future[T]") -> None:
        """Close a connection that must not be used again, in the call's own thread once the call has ended."""
        client.abort()

        def disconnect(done: "Future[T]") -> None:
            with suppress(BaseException):
                done.exception()  # was reported to the caller, or nobody waits for it
            client.disconnect()

        future.add_done_callback(disconnect)
