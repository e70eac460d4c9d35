"""The pool of connections: a call that failed leaves nothing behind, even without the garbage collector."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from adledger.sinks.pool import ClientPool


class Broken:
    """A client that can only be closed."""

    timeout_seconds = 0.0

    def abort(self) -> None:
        """Do nothing: no call is under way."""

    def disconnect(self) -> None:
        """Do nothing: no connection is open."""


class Columns:
    """What a batch holds on to."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.usefixtures("no_collector")
async def test_a_failed_call_releases_what_it_was_to_send(streamed: bool):
    """Otherwise each batch in doubt would stay in memory: workers disable the collector, and a slow server means many of
    them.
    """
    pool = ClientPool(Broken, 1)

    async def fail() -> weakref.ref[Columns]:
        columns = Columns()

        def send(_: Broken) -> Iterator[None]:
            raise OSError(f"the server went away with {id(columns)}")

        def stream(client: Broken) -> Iterator[None]:
            yield from send(client)

        with suppress(OSError):
            await (anext(pool.stream(stream)) if streamed else pool.run(send))
        return weakref.ref(columns)

    pending = await fail()
    await pool.close()  # its threads no longer refer to it
    assert pending() is None
