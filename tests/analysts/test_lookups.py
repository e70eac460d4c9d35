"""A look-up by event id, user or address reads under 1 % of 30 days of events."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.schemas import migrate
from adledger.schemas.statements import Target, render
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.lookups import LOOKUPS, granules_read, insert_days

ROWS, GRANULE_ROWS = 600_000, 16
"""As many granules (37,500) as 300 million events have, each a 512th of the size."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Our tables, but with small granules."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        client = connect(ServerAddress(server.host, server.port, server.http_port))
        for statement in migrate.bootstrap(Target("adledger")):
            client.execute(statement)
        migrations = [s for m in migrate.load() for s in render(m.sql, Target("adledger"))]
        for statement in (*migrate.new_tables(Target("adledger")), *migrations):
            client.execute(_with_small_granules(statement))
        insert_days(client, "adledger", ROWS)
        yield client
        client.disconnect()


def _with_small_granules(statement: str) -> str:
    if not statement.startswith("CREATE TABLE IF NOT EXISTS adledger.events "):
        return statement
    small = statement.replace("SETTINGS", f"SETTINGS index_granularity = {GRANULE_ROWS},", 1)
    assert small != statement
    return small


@pytest.mark.parametrize("name", LOOKUPS)
def test_a_look_up_reads_under_one_percent(client: Client, name: str) -> None:
    """The table's own index is used, through v_events too, and existing events are found."""
    read, of = granules_read(client, "adledger", LOOKUPS[name])
    assert of >= 36_000
    assert 0 < read < 0.01 * of
    assert granules_read(client, "adledger", LOOKUPS[name], "v_events") == (read, of)
    found = f"SELECT count() FROM adledger.v_events WHERE {LOOKUPS[name]}"
    assert client.execute(found)[0][0] > 0


def test_a_look_up_by_address_text_uses_the_index(client: Client) -> None:
    """v_events_of_ip turns the address into the two stored halves."""
    ip = str(client.execute("SELECT toString(ip) FROM adledger.events LIMIT 1")[0][0])
    read, of = granules_read(client, "adledger", "1", f"v_events_of_ip(ip = '{ip}')")
    assert 0 < read < 0.01 * of


def test_the_conditions_are_the_cookbooks() -> None:
    """The conditions above are those of the cookbook."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "analysts.md").read_text("utf-8")
    assert "id_hash = xxHash64(" in page
    assert "user_hash = xxHash64(" in page
    assert "v_events_of_ip(ip = " in page
