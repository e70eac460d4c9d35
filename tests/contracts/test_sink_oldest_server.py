"""The sink on ClickHouse 25.8, the oldest release that is supported: the laws of its SQL, and a worker from end to end."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.settings import Settings
from adledger.schemas.migrate import load, migrate
from adledger.schemas.statements import Target, render
from adledger.sinks.checks import VERSION_MIN, check_server
from adledger.sinks.connection import connect
from tests.contracts.sink_suite import SinkContract
from tests.contracts.test_sink import ClickHouseHarness
from tests.support.clickhouse_servers import address_of
from tests.support.oldest_clickhouse import oldest_server

MODEL = TrafficModel(
    seed=8, events=3_000, partitions=2, duration_hours=3, duplicate_share=0.1, malformed_share=0.02
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    """In `contract` the table `events` is an existing database's, with two orders; the worker's database is a new one."""
    with oldest_server(tmp_path_factory.mktemp("oldest")) as running:
        address = address_of(running)
        with connect(address) as client:
            client.execute("CREATE DATABASE contract")
            for statement in render(load()[0].sql, Target("contract")):
                client.execute(statement)
            migrate(client, database="contract", release="test")
        yield address


def test_a_worker_on_the_oldest_release(server: ServerAddress, tmp_path: Path) -> None:
    """It is the release that VERSION_MIN names; with the shipped rules every table equals the ground truth."""
    with open_log(tmp_path / "log", MODEL.partitions) as writer:
        ground_truth = write_traffic(MODEL, writer, lambda _: None).ground_truth
    settings = Settings(source=FilesAddress(tmp_path / "log"), clickhouse=server)
    assert run_worker(settings, until_caught_up=True, progress=lambda _: None) is not None
    with connect(server) as client:
        [(version,)] = client.execute("SELECT version()")
        assert tuple(map(int, version.split(".")[:2])) == VERSION_MIN
        assert check_server(client, "adledger") == []
        report = verify(ground_truth, client, "adledger", before_rules=True)
        assert report.equal, report
        assert not audit(client, TableNames("adledger"), Scope(), recount=True).problems
        for view in (
            "v_events",
            "v_rollup_minute",
            "v_ledger",
            "v_reasons",
            "v_statement",
            "v_batch_digests",
        ):
            assert client.execute(f"SELECT count() > 0 FROM adledger.{view}") == [(1,)], view


class TestOldestServer(SinkContract):
    @pytest.fixture
    async def harness(self, server: ServerAddress) -> AsyncIterator[ClickHouseHarness]:
        harness = ClickHouseHarness(server, "contract")
        yield harness
        await harness.sink.close()

    @pytest.mark.skip(reason="its adapter runs one query at a time")
    async def test_quiesce_ends_the_lanes_inserts_and_no_others(self) -> None:  # type: ignore[override]
        """Not here."""

    @pytest.mark.skip(reason="its adapter runs one query at a time")
    async def test_quiesce_returns_when_nothing_runs(self) -> None:  # type: ignore[override]
        """Not here."""

    @pytest.mark.skip(reason="its adapter runs one query at a time")
    async def test_a_cancelled_insert_is_stored_whole_or_not_at_all(self) -> None:  # type: ignore[override]
        """Not here."""
