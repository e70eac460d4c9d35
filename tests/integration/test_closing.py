"""Closing periods of generated traffic on the engine: the law of the books, crashes at every step, and two closers at once."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.billing.closing import LedgerView, NextPeriod, close_all, close_next
from adledger.pipeline.billing.closings import ClosingAttempt, last_closing
from adledger.pipeline.billing.overrides import leave_out
from adledger.pipeline.billing.plan import BillingPeriod
from adledger.pipeline.billing.roads import RoadsDiffer
from adledger.pipeline.billing.status import explain_period
from adledger.pipeline.errors import AdledgerError, SinkError
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.schemas.classes import Class
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.closings import (
    ADJUSTMENTS,
    FINALS,
    HOUR_MS,
    MODEL,
    DyingClient,
    MeanwhileClient,
    advance,
    copy,
    fill,
)

LANES = range(MODEL.partitions)
PERIODS_LATE = 2


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    folder = tmp_path_factory.mktemp("closing")
    with EmbeddedServer.start(folder / "clickhouse") as running:
        server = ServerAddress(running.host, running.port, running.http_port)
        fill(folder, server, "filled")
        yield server


@pytest.fixture(scope="module")
def client(address: ServerAddress) -> Iterator[Client]:
    with connect(address) as connection:
        yield connection


@pytest.fixture(scope="module")
def closed(client: Client, address: ServerAddress) -> str:
    """A database whose periods were all closed at once, after every lane went on by an hour."""
    return close_everything(client, address, copy(client, "filled", "closed"))


def view(client: QueryClient, database: str) -> LedgerView:
    return LedgerView.to_close(client, TableNames(database), "test", sleep=None)


def close(client: QueryClient, database: str, through: int | None = None) -> list[ClosingAttempt]:
    done = close_all(client, view(client, database), "test", through)
    return [one for one in done if isinstance(one, ClosingAttempt)]


def close_everything(client: Client, address: ServerAddress, database: str) -> str:
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    assert len(close(client, database)) > 5
    return database


def books(client: Client, database: str, *, by: str = "billing_account_id") -> dict[tuple[Any, ...], Any]:
    """Return key -> records and nanos of final sums and adjustments together, by publisher or period, type, class, currency."""
    of_final = {"billing_account_id": "publisher_id", "charge_period_start": "charge_period_start"}[by]
    key = "event_type_code, class_code, currency_code"
    chosen = f"SELECT charge_period_start, run_id FROM {database}.v_closings"
    rows = client.execute(
        f"SELECT key, {key}, sum(records), sum(money_nanos) FROM ("
        f"SELECT {of_final} AS key, {key}, toInt64(records) AS records, money_nanos FROM {database}.publisher_periods "
        f"WHERE (charge_period_start, run_id) IN ({chosen}) UNION ALL "
        f"SELECT {by} AS key, {key}, records, money_nanos FROM {database}.adjustments "
        f"WHERE (booked_period_start, run_id) IN ({chosen})) GROUP BY key, {key}"
    )
    return {tuple(row[:4]): tuple(row[4:]) for row in rows}


def events(client: Client, database: str, key: str) -> dict[tuple[Any, ...], Any]:
    """Return the same of the stored events whose batch the ledger has."""
    rows = client.execute(
        f"SELECT {key} AS key, event_type_code, class_code, currency_code, toInt64(count()), sum(toInt128(money_nanos)) "
        f"FROM {database}.events WHERE (lane, batch_no) IN (SELECT lane, batch_no FROM {database}.ledger) "
        "GROUP BY key, event_type_code, class_code, currency_code"
    )
    return {tuple(row[:4]): tuple(row[4:]) for row in rows}


def late_money(client: Client, database: str, cause: str) -> int:
    return client.execute(
        f"SELECT sum(money_nanos) FROM {database}.adjustments WHERE class_code = {Class.BILLABLE:d} AND cause = '{cause}' "
        f"AND (booked_period_start, run_id) IN (SELECT charge_period_start, run_id FROM {database}.v_closings)"
    )[0][0]


def law_holds(client: Client, database: str) -> None:
    assert books(client, database) == events(client, database, "publisher_id")
    period = "toStartOfFifteenMinutes(toDateTime(event_time, 'UTC'))"
    assert books(client, database, by="charge_period_start") == events(client, database, period)
    ledger = client.execute(
        "SELECT class_code, currency_code, sum(toInt128(nanos)) FROM "
        f"{database}.ledger ARRAY JOIN money.class_code AS class_code, money.currency_code AS currency_code, "
        "money.money_nanos AS nanos GROUP BY class_code, currency_code"
    )
    summed: dict[tuple[int, int], int] = {}
    for (_, _, class_code, currency), (_, nanos) in books(client, database).items():
        summed[class_code, currency] = summed.get((class_code, currency), 0) + nanos
    assert summed == {(code, currency): nanos for code, currency, nanos in ledger}


def test_final_and_adjustments_are_what_the_ledger_covers(client: Client, closed: str) -> None:
    """The law: per publisher and per period, type, class and currency, to the nano, with late money above zero."""
    law_holds(client, closed)
    assert late_money(client, closed, "after_close") > 0
    assert late_money(client, closed, "lane_left_out") == 0


def test_periods_follow_without_a_gap(client: Client, closed: str) -> None:
    """Every period from the first to the last is closed once, each adjustment in a later period than it corrects."""
    starts = [
        s
        for (s,) in client.execute(
            f"SELECT toUnixTimestamp(charge_period_start) AS s FROM {closed}.v_closings ORDER BY s"
        )
    ]
    assert starts == list(range(starts[0], starts[-1] + 900, 900))
    assert client.execute(
        f"SELECT count() FROM {closed}.adjustments WHERE booked_period_start <= charge_period_start"
    ) == [(0,)]
    ids, distinct = client.execute(f"SELECT count(), uniqExact(adjustment_id) FROM {closed}.v_adjustments")[0]
    assert ids == distinct > 0


def test_rows_that_no_ledger_row_covers_are_in_no_book(
    client: Client, address: ServerAddress, closed: str
) -> None:
    """A batch that is still being written changes no final sum, and no adjustment."""
    database = copy(client, "filled", "uncovered")
    for table in ("events", "rollup_minute"):
        columns = "event_time" if table == "events" else "minute"
        client.execute(
            f"INSERT INTO {database}.{table} SELECT * REPLACE (toUInt64(100000) AS batch_no) FROM {database}.{table} "
            f"WHERE lane = 0 AND batch_no = 1 ORDER BY {columns}"
        )
    close_everything(client, address, database)
    assert client.execute(FINALS.format(database)) == client.execute(FINALS.format(closed))
    assert client.execute(ADJUSTMENTS.format(database)) == client.execute(ADJUSTMENTS.format(closed))


def test_closing_as_the_lanes_go_on_gives_the_same(
    client: Client, address: ServerAddress, closed: str
) -> None:
    """Closing repeatedly while watermarks advance makes the rows that closing at the end makes, ids included."""
    database = copy(client, "filled", "stepwise")
    total = 0
    for _ in range(6):
        total += len(close(client, database))
        asyncio.run(advance(address, database, LANES, HOUR_MS // 6))
    total += len(close(client, database))
    assert total == client.execute(f"SELECT count() FROM {closed}.v_closings")[0][0]
    assert client.execute(FINALS.format(database)) == client.execute(FINALS.format(closed))
    assert client.execute(ADJUSTMENTS.format(database)) == client.execute(ADJUSTMENTS.format(closed))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_between_any_two_steps(
    client: Client, address: ServerAddress, closed: str, *, after: bool
) -> None:
    """Wherever the closer dies, views show complete periods only, and the next closer makes the same result."""
    database = copy(client, "filled", f"killed_{'after' if after else 'before'}")
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    for table in (
        "period_books",
        "publisher_periods",
        "adjustments",
        "closings",
        "adjustments",
        "publisher_periods",
    ):
        dying = DyingClient(client, table, after=after)
        before = client.execute(f"SELECT count() FROM {database}.v_closings")[0][0]
        with pytest.raises(DyingClient.Died):
            close(dying, database)
        shown = client.execute(
            f"SELECT uniqExact(charge_period_start) FROM {database}.v_publisher_periods "
            f"WHERE charge_period_start NOT IN (SELECT charge_period_start FROM {database}.closings)"
        )[0][0]
        assert shown == 0
        closed_by_it = client.execute(f"SELECT count() FROM {database}.v_closings")[0][0] - before
        assert table != "closings" or closed_by_it == int(after)
    close(client, database)
    left = client.execute(
        f"SELECT uniqExact(run_id) FROM {database}.publisher_periods WHERE run_id NOT IN (SELECT run_id FROM {database}.closings)"
    )[0][0]
    assert left > 0, "an attempt that died left rows, which no view shows"
    assert client.execute(FINALS.format(database)) == client.execute(FINALS.format(closed))
    assert client.execute(ADJUSTMENTS.format(database)) == client.execute(ADJUSTMENTS.format(closed))


def test_two_at_once_give_one_result(client: Client, address: ServerAddress, closed: str) -> None:
    """Both complete their attempt at every period; they are alike, and readers see one of them."""
    database = copy(client, "filled", "both")
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    with connect(address) as other:
        first, second = view(client, database), view(other, database)
        periods = 0
        while True:
            both = MeanwhileClient(client, "closings", lambda: close_next(other, second, "other"))
            if not isinstance(close_next(both, first, "test"), ClosingAttempt):
                break
            periods += 1
    assert client.execute(f"SELECT count(), uniqExact(charge_period_start) FROM {database}.closings") == [
        (2 * periods, periods)
    ]
    assert client.execute(FINALS.format(database)) == client.execute(FINALS.format(closed))
    assert client.execute(ADJUSTMENTS.format(database)) == client.execute(ADJUSTMENTS.format(closed))
    last = last_closing(client, TableNames(database))
    assert last is not None
    explained = explain_period(client, TableNames(database), last.period_start)
    assert explained is not None
    assert (explained.attempts, explained.alike, explained.intact) == (2, True, True)


def test_rows_that_both_roads_lack_stop_the_closing(client: Client, address: ServerAddress) -> None:
    """Where a day was dropped from events and rollup_minute alike, the ledger knows of more: an empty final is never written."""
    database = copy(client, "filled", "dropped")
    view(client, database)  # the books are open
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    for table in ("events", "rollup_minute"):
        client.execute(f"TRUNCATE TABLE {database}.{table}")
    with pytest.raises(SinkError, match="has 0 events of its batches, the ledger"):
        close(client, database)
    assert client.execute(f"SELECT count() FROM {database}.closings") == [(0,)]


@pytest.mark.parametrize("table", ["events", "rollup_minute"])
def test_roads_that_differ_stop_the_closing(client: Client, address: ServerAddress, table: str) -> None:
    """A nano that only one of both tables has stops its period's closing, which names publisher, lane and batch."""
    database = copy(client, "filled", f"differs_{table}")
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    close(client, database, through=_some_period(client, database))
    done = last_closing(client, TableNames(database))
    assert done is not None
    next_start = done.period_start // 1000 + 900
    time = "event_time" if table == "events" else "minute"
    in_time = "NOT bitTest(flags, 8)" if table == "events" else "after_close = 0"
    where = f"{in_time} AND toUnixTimestamp({time}) >= {next_start} AND toUnixTimestamp({time}) < {next_start} + 900"
    publisher, lane, batch_no = client.execute(
        f"SELECT publisher_id, lane, batch_no FROM {database}.{table} WHERE {where} ORDER BY ALL LIMIT 1"
    )[0]
    client.execute(
        f"ALTER TABLE {database}.{table} UPDATE money_nanos = money_nanos + 1 WHERE {where} AND publisher_id = {publisher} "
        f"AND lane = {lane} AND batch_no = {batch_no}",
        settings={"mutations_sync": 2},
    )
    with pytest.raises(RoadsDiffer, match=rf"of publishers {publisher}; in lane {lane} batch {batch_no}"):
        close(client, database)
    assert last_closing(client, TableNames(database)) == done
    assert client.execute(
        f"SELECT count() FROM {database}.publisher_periods WHERE charge_period_start = toDateTime({next_start}, 'UTC')"
    ) == [(0,)]


def test_tables_that_are_wrong_alike_stop_the_closing(client: Client, address: ServerAddress) -> None:
    """A nano that both roads have, and the ledger has not, stops the closing: they agree, and both were altered."""
    database = copy(client, "filled", "alike")
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    (publisher, lane, batch_no), = client.execute(
        f"SELECT publisher_id, lane, batch_no FROM {database}.events WHERE NOT bitTest(flags, 8) GROUP BY ALL "
        "HAVING count() = 1 ORDER BY ALL LIMIT 1"
    )  # fmt: skip
    for table in ("events", "rollup_minute"):
        client.execute(
            f"ALTER TABLE {database}.{table} UPDATE money_nanos = money_nanos + 1 WHERE publisher_id = {publisher} "
            f"AND lane = {lane} AND batch_no = {batch_no}",
            settings={"mutations_sync": 2},
        )
    with pytest.raises(RoadsDiffer, match=r"rollup_minute has \d+ \w+ events with .* the ledger"):
        close(client, database)


@pytest.mark.parametrize(
    ("lane", "periods", "said"), [(7, 0, "no lane 7"), (1, 10**6, "has not reached its close")]
)
def test_an_override_reaches_no_unknown_lane_and_no_future(
    client: Client, closed: str, lane: int, periods: int, said: str
) -> None:
    """It can't be undone: a lane that the log lacks, and a period that may still close with the lane, are refused."""
    delays = view(client, closed).delays
    start = BillingPeriod.at(MODEL.start_ms, delays)
    until = BillingPeriod.at(start.start + periods * 900_000, delays)
    with pytest.raises(AdledgerError, match=said):
        leave_out(client, TableNames(closed), lane, start, until, "a test", "mia")
    assert client.execute(f"SELECT count() FROM {closed}.period_overrides") == [(0,)]


def test_a_gap_in_the_ledger_stops_the_closing(client: Client, address: ServerAddress) -> None:
    """Where a ledger row is missing between a lane's batches, nothing is closed on top of it."""
    database = copy(client, "filled", "gap")
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    client.execute(
        f"ALTER TABLE {database}.ledger DELETE WHERE lane = 1 AND batch_no = 3",
        settings={"mutations_sync": 2},
    )
    with pytest.raises(SinkError, match="lane 1 batches"):
        close(client, database)


def test_a_lane_that_is_left_out_comes_as_adjustments(client: Client, address: ServerAddress) -> None:
    """A lane behind holds periods open; left out, it closes; what it completes later is booked once it is back: the law holds."""
    database = copy(client, "filled", "left_out")
    tables = TableNames(database)
    behind = client.execute(f"SELECT intDiv(max(batch_no), 2) FROM {database}.ledger WHERE lane = 1")[0][0]
    client.execute(f"CREATE TABLE {database}.kept AS {database}.ledger")
    later = f"FROM {database}.ledger WHERE lane = 1 AND batch_no > {behind}"
    client.execute(f"INSERT INTO {database}.kept SELECT * {later}")
    client.execute(
        f"ALTER TABLE {database}.ledger DELETE WHERE lane = 1 AND batch_no > {behind}",
        settings={"mutations_sync": 2},
    )
    others = [lane for lane in LANES if lane != 1]
    asyncio.run(advance(address, database, others, HOUR_MS))
    held = list(close_all(client, view(client, database), "test", None))[-1]
    assert isinstance(held, NextPeriod)
    assert [h.lane for h in held.plan.held_by] == [1]
    first = held.plan.period
    delays = view(client, database).delays
    through = BillingPeriod.at(first.start + PERIODS_LATE * 900_000, delays)
    with pytest.raises(AdledgerError, match="lane 0 is past the close"):
        leave_out(client, tables, 0, first, through, "a test", "mia")
    leave_out(client, tables, 1, first, through, "a test", "mia")
    assert len(close(client, database)) == PERIODS_LATE + 1
    columns = "* EXCEPT written_at"
    client.execute(f"INSERT INTO {database}.ledger SELECT {columns}, written_at FROM {database}.kept")
    asyncio.run(advance(address, database, LANES, 2 * HOUR_MS))
    assert len(close(client, database)) > 1
    law_holds(client, database)
    assert late_money(client, database, "lane_left_out") > 0


def _some_period(client: Client, database: str) -> int:
    """Return the start (ms) of a period in the middle of the traffic."""
    return (
        client.execute(
            f"SELECT toUnixTimestamp(toStartOfFifteenMinutes(quantileExact(0.5)(minute))) FROM {database}.rollup_minute"
        )[0][0]
        * 1000
    )


def test_an_older_releases_batches_are_before_the_books(client: Client, address: ServerAddress) -> None:
    """Where an older release wrote the first batches, unmarked, the books begin after them; their first may be gone."""
    database = copy(client, "filled", "older")
    older = "batch_no <= 10"
    for change in (
        f"{database}.events UPDATE flags = bitAnd(flags, 65279) WHERE {older}",
        f"{database}.rollup_minute UPDATE after_close = 0 WHERE {older}",
        f"{database}.ledger UPDATE digest_definition = 1 WHERE {older}",
        f"{database}.events DELETE WHERE batch_no = 1",
        f"{database}.rollup_minute DELETE WHERE batch_no = 1",
    ):
        client.execute(f"ALTER TABLE {change}", settings={"mutations_sync": 2})
    close_everything(client, address, database)
    (begin, first), = client.execute(
        f"SELECT DISTINCT toUnixTimestamp(books_begin), toUnixTimestamp(first_period_start) FROM {database}.period_books"
    )  # fmt: skip
    assert begin == first > 0
    period = "toStartOfFifteenMinutes(toDateTime(event_time, 'UTC'))"
    of_books = {k: v for k, v in events(client, database, period).items() if k[0].timestamp() >= begin}
    assert of_books
    assert books(client, database, by="charge_period_start") == of_books
    assert late_money(client, database, "after_close") > 0
