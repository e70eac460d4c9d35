"""docs/billing.md is what the engine has: every column of its views, and its query."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.billing.closing import LedgerView, close_all
from adledger.pipeline.ledger.queries import TableNames
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.closings import HOUR_MS, MODEL, advance, fill

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "billing.md").read_text("utf-8")
VIEWS = ("v_publisher_periods", "v_adjustments", "v_closings")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A connection to a server whose database `filled` has closed periods."""
    folder = tmp_path_factory.mktemp("guide")
    with EmbeddedServer.start(folder / "clickhouse") as running:
        address = ServerAddress(running.host, running.port, running.http_port)
        fill(folder, address, "filled")
        asyncio.run(advance(address, "filled", range(MODEL.partitions), HOUR_MS))
        with connect(address) as connection:
            view = LedgerView.to_close(connection, TableNames("filled"), "test", sleep=None)
            assert len(list(close_all(connection, view, "test", None))) > 5
            yield connection


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_is_documented(client: Client, view: str) -> None:
    """The page has each column of a view, and no others: it is a contract."""
    table = PAGE.split(f"### {view}\n")[1].split("\n#")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    columns = client.execute(
        f"SELECT name FROM system.columns WHERE database = 'filled' AND table = '{view}'"
    )
    assert documented == {name.partition(".")[0] for (name,) in columns}


def test_its_query_of_a_month_is_final_and_booked_money(client: Client) -> None:
    """It adds final sums and adjustments of half-open bounds, by publisher and currency, exactly."""
    query = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)[0]
    expected = client.execute(
        "SELECT publisher_id, currency, sum(n), sum(nanos) AS nanos FROM ("
        "SELECT publisher_id, billing_currency AS currency, toInt64(records) AS n, money_nanos AS nanos FROM filled.publisher_periods "
        "WHERE class_code = 1 AND toUnixTimestamp(charge_period_start) >= 1735774200 AND toUnixTimestamp(charge_period_start) < 1735777800 "
        "UNION ALL SELECT billing_account_id, billing_currency, records, money_nanos FROM filled.adjustments "
        "WHERE class_code = 1 AND toUnixTimestamp(booked_period_start) >= 1735774200 AND toUnixTimestamp(booked_period_start) < 1735777800) "
        "GROUP BY publisher_id, currency ORDER BY nanos DESC LIMIT 5"
    )
    found = client.execute(re.sub(r"\bv_(?=publisher_periods|adjustments)", "filled.v_", query))
    assert [(p, c, n, int(money * 10**9)) for p, c, n, money in found] == expected
    assert expected
