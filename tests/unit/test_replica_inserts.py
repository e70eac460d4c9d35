"""Inserts into replicas: the token that makes a repeated one count once, and what an override's own insert waits for."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from clickhouse_driver.errors import ServerException

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import InsertRefused, SinkUnavailable
from adledger.sinks.blocks import Block
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import Client
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.overrides import CLEARED_TABLES, LaneOverride, Leftover, OverrideKind, write_overrides
from adledger.sinks.refused import query_refused
from adledger.sinks.sink import Stamp
from tests.contracts import sink_suite

STAMP = Stamp(3, 7, 2**32 - 1)
NOT_IN_QUORUM, SHUTTING_DOWN = 289, 236
ROWS = {
    "events": sink_suite.events(1),
    "dead_letters": sink_suite.dead_letters([b"x"]),
    "rollup_minute": sink_suite.rollups(1),
    "ledger": ledger_columns(sink_suite.entry(STAMP.lane, STAMP.batch_no)),
}


class CountingSink(ClickHouseSink):
    """A sink whose server has `clears` overrides that remove the batch's rows, or refuses to say; it keeps tokens."""

    def __init__(self, clears: int | ServerException, cluster: str | None = "replicas") -> None:
        super().__init__(ServerAddress("127.0.0.1", 1, 0), SinkOptions(cluster=cluster))
        self.clears = clears
        self.tokens: list[str | None] = []

    async def _read(self, call: Any) -> Any:
        if isinstance(self.clears, ServerException):
            raise query_refused(self.clears)
        return [(self.clears,)]

    async def _insert(
        self,
        table: str,
        block: Block,
        settings: Mapping[str, Any],
        query_id: str | None,
    ) -> None:
        self.tokens.append(settings.get("insert_deduplication_token"))


@pytest.mark.parametrize("table", ROWS)
async def test_a_token_changes_where_an_override_removes_rows(table: str) -> None:
    """The ledger's rows are never removed, so another token could only let a repeated ledger row count twice."""
    tokens = []
    for clears in (0, 0, 1, 1, 2):
        sink = CountingSink(clears)
        await sink.insert(table, ROWS[table], STAMP)
        tokens += sink.tokens
    same, changed = f"3/7/{table}", [f"3/7/{table}/1"] * 2 + [f"3/7/{table}/2"]
    assert tokens == [same, same, *(changed if table in CLEARED_TABLES else [same] * 3)]


async def test_a_single_server_gets_no_token() -> None:
    """It could answer OK for rows that it does not have."""
    sink = CountingSink(1, cluster=None)
    await sink.insert("events", ROWS["events"], STAMP)
    assert sink.tokens == [None]


async def test_a_replica_that_can_not_say_refuses_the_insert() -> None:
    """Nothing was sent, and the batch is in doubt, as after any refused insert: the lane settles it without a restart."""
    sink = CountingSink(ServerException("DB::Exception: Replica doesn't have part all_1_1_0", NOT_IN_QUORUM))
    with pytest.raises(InsertRefused, match=r"nothing was inserted into events: .*289"):
        await sink.insert("events", ROWS["events"], STAMP)
    sink.clears = ServerException("DB::Exception: The server is shutting down", SHUTTING_DOWN)
    with pytest.raises(SinkUnavailable):
        await sink.insert("events", ROWS["events"], STAMP)
    assert sink.tokens == []


class KeptSettings:
    """A client that keeps the settings of what it executes."""

    def __init__(self) -> None:
        self.settings: list[Mapping[str, Any]] = []

    def execute(self, query: str, rows: list[Any], settings: Mapping[str, Any]) -> None:
        """Keep the settings."""
        assert query.startswith("INSERT INTO db.lane_orders")
        assert len(rows) == 1
        self.settings.append(settings)


def test_an_override_waits_for_its_quorum() -> None:
    """Else a worker could see it on one replica, remove the rows, and miss it on another: the rows written again are dropped."""
    override = LaneOverride(3, 7, OverrideKind.CLEAR, "e", (), leftovers=(Leftover("events", 1, 1, 0),))
    client = KeptSettings()
    for cluster in (None, "replicas"):
        write_overrides(cast("Client", client), [override], database="db", cluster=cluster)
    assert client.settings == [
        {"async_insert": 0},
        {"async_insert": 0, "insert_quorum": "auto", "insert_quorum_parallel": 0},
    ]
