"""Batches that an older release wrote stay checked by the columns that they had, whatever was added since."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.schemas.digests import CURRENT, FIRST
from adledger.schemas.migrate import load, migrate
from adledger.sinks.blocks import Block
from adledger.sinks.clickhouse import ClickHouseSink
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.integration import test_cli_tables as batches

MIGRATIONS_BEFORE = 15
"""What the release had applied that wrote no definition into its ledger rows."""
LANE = 1


class OlderSink(ClickHouseSink):
    """Writes the columns that a release knew, as it did."""

    def __init__(self, address: ServerAddress, columns: Mapping[str, set[str]]) -> None:
        super().__init__(address)
        self._columns = columns

    async def _insert(
        self, table: str, block: Block, settings: Mapping[str, Any], query_id: str | None
    ) -> None:
        known = {name: values for name, values in block.items() if name in self._columns[table]}
        await super()._insert(table, known, settings, query_id)


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A database of the release before, with a lane's batches; migrated, with more batches by this release."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("older")) as running:
        address = ServerAddress(running.host, running.port, running.http_port)
        with connect(address) as client:
            migrate(client, database="adledger", release="before", migrations=load()[:MIGRATIONS_BEFORE])
            found: dict[str, set[str]] = {}
            for table, name in client.execute(
                "SELECT table, name FROM system.columns WHERE database = 'adledger' AND default_kind != 'ALIAS'"
            ):
                found.setdefault(table, set()).add(name)
            batches.fill(OlderSink(address, found), LANE, FIRST)
            migrate(client, database="adledger", release="now")
            batches.fill(ClickHouseSink(address), LANE, CURRENT, batches.BATCHES + 1)
            yield client


def problems(client: Client) -> list[tuple[str, int]]:
    report = audit(client, TableNames("adledger"), Scope(), recount=True)
    assert report.batches == 2 * batches.BATCHES
    return [(problem.table, problem.batch_no) for problem in report.problems]


def test_each_batch_is_checked_by_its_own_definition(client: Client) -> None:
    """Stored batches of the release before pass after the migration, and an altered cell shows in either's rows."""
    stored = client.execute(
        "SELECT batch_no, digest_definition FROM adledger.ledger WHERE lane = 1 ORDER BY batch_no"
    )
    assert [number for _, number in stored] == [FIRST] * batches.BATCHES + [CURRENT] * batches.BATCHES
    assert problems(client) == []
    for batch_no in (2, batches.BATCHES + 2):
        client.execute(
            f"ALTER TABLE adledger.events UPDATE user_hash = user_hash + 1 WHERE batch_no = {batch_no} "
            "AND user_hash % 2 = 0 SETTINGS mutations_sync = 2"
        )
    assert problems(client) == [("events", 2), ("events", batches.BATCHES + 2)]


def test_a_definition_that_was_altered_is_found(client: Client) -> None:
    """The row checksum covers it: a ledger row can't be made to leave columns out."""
    client.execute(
        "ALTER TABLE adledger.ledger UPDATE digest_definition = 7 WHERE batch_no = 3 SETTINGS mutations_sync = 2"
    )
    assert problems(client) == [("ledger", 3), ("ledger", 3)]
