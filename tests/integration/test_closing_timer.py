"""Closing as time goes on, on the engine: the owner of lane 0 closes what may be closed, and says once what is held or fails."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.billing.timer import run_closings
from adledger.pipeline.lanes.emit import Emit, Event
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.lanes.worker_events import ClosingFailed, PeriodClosed, PeriodHeld, PeriodsSeen
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.closings import HOUR_MS, advance, copy, fill


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("timer")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(folder / "clickhouse") as running:
        server = ServerAddress(running.host, running.port, running.http_port)
        fill(folder, server, "filled")
        yield server


@pytest.fixture(scope="module")
def client(address: ServerAddress) -> Iterator[Client]:
    with connect(address) as connection:
        yield connection


def rounds(address: ServerAddress, database: str, leads: list[bool]) -> list[list[Event]]:
    """Return the events of a round for each answer to whether the worker owns lane 0."""
    found: list[list[Event]] = []

    async def sleep(_: float) -> None:
        if len(found) == len(leads):
            raise asyncio.CancelledError
        found.append([])

    def emit(event: Event) -> None:
        found[-1].append(event)

    async def run() -> None:
        settings = Settings(clickhouse=address, database=database, period_closing_enabled=True)
        await run_closings(settings, address, lambda: leads[len(found) - 1], emit, sleep)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    return found


def test_the_owner_of_lane_0_closes(client: Client, address: ServerAddress) -> None:
    """Others do nothing; the owner closes, tells once which lane holds the next period, and shows in each round what waits."""
    database = copy(client, "filled", "timed")
    asyncio.run(advance(address, database, [0, 2], 4 * HOUR_MS))
    other, first, second = rounds(address, database, [False, True, True])
    assert other == [PeriodsSeen()]
    *closed, held, seen = first
    assert closed
    assert all(isinstance(event, PeriodClosed) for event in closed)
    assert isinstance(held, PeriodHeld)
    assert held.lanes == (1,)
    assert isinstance(seen, PeriodsSeen)
    assert seen.periods_waiting > 2
    assert list(seen.held) == [1]
    assert sum(seen.waiting.values()) > 0
    assert second == [seen]
    assert client.execute(f"SELECT count() FROM {database}.v_closings") == [(len(closed),)]


def test_a_difference_is_told_once_and_shown_until_it_is_gone(client: Client, address: ServerAddress) -> None:
    """Rows that one road has twice stop closings: an error once, `failed` in each round; without them periods close."""
    database = copy(client, "filled", "failing")
    asyncio.run(advance(address, database, range(3), HOUR_MS))
    doubled = f"{database}.rollup_minute SELECT * FROM {database}.rollup_minute WHERE after_close = 0 ORDER BY minute LIMIT 1"
    client.execute(f"CREATE TABLE {database}.kept AS {database}.rollup_minute")
    client.execute(f"INSERT INTO {database}.kept SELECT * FROM {database}.rollup_minute")
    client.execute(f"INSERT INTO {doubled}")
    first, second = rounds(address, database, [True, True])
    failed, seen = first
    assert isinstance(failed, ClosingFailed)
    assert "rollup_minute and events differ" in failed.reason
    assert isinstance(seen, PeriodsSeen)
    assert seen.failed
    assert second == [seen]
    client.execute(f"TRUNCATE TABLE {database}.rollup_minute")
    client.execute(f"INSERT INTO {database}.rollup_minute SELECT * FROM {database}.kept")
    (*closed, seen), = rounds(address, database, [True])  # fmt: skip
    assert len(closed) > 3
    assert isinstance(seen, PeriodsSeen)
    assert not seen.failed


def test_a_server_that_is_away_is_told(folder: Path) -> None:
    """No connection is an error of the round, not the end of closing."""
    away = ServerAddress("127.0.0.1", 1, 1)
    first, second = rounds(away, "none", [True, True])
    assert [type(event) for event in first] == [ClosingFailed, PeriodsSeen]
    assert second == [PeriodsSeen(failed=True)]


def test_a_worker_of_a_directory_runs_it_beside_its_lanes(folder: Path, address: ServerAddress) -> None:
    """What runs beside the worker learns that it owns lane 0, and is cancelled when the worker ends."""
    told: list[str] = []

    async def beside(_: Settings, server: ServerAddress, leads: Callable[[], bool], __: Emit) -> None:
        assert server == address
        try:
            while not leads():  # noqa: ASYNC110 - the worker gets lane 0 meanwhile
                await asyncio.sleep(0)
            told.append("leads")
            await asyncio.Event().wait()
        finally:
            told.append("ended")

    settings = Settings(source=FilesAddress(folder / "log"), clickhouse=address, database="filled")
    assert run_worker(settings, until_caught_up=True, progress=lambda _: None, beside=beside) is not None
    assert told == ["leads", "ended"]
