"""Where the books begin: a fact of its own, since lanes that start late could otherwise move the first period."""

# ruff: noqa: S608 - names of tables are ours, the database's is a setting with a pattern

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from adledger.pipeline.billing.fence import FENCE_SECONDS, fenced_query_id
from adledger.pipeline.billing.marks import earliest_event, unmarked
from adledger.pipeline.billing.plan import first_period
from adledger.pipeline.errors import SinkError
from adledger.pipeline.ledger.queries import QueryClient, TableNames, server_seconds
from adledger.schemas.periods import CloseDelays


@dataclass(frozen=True, slots=True)
class Books:
    """The first period that is closed, and from where on events are in the books (ms): 0, or that period."""

    first_period: int
    begin: int


def propose(client: QueryClient, tables: TableNames, delays: CloseDelays) -> Books | None:
    """Return where books would begin by what the tables have now; None: there is no event in time yet.

    Raises SinkError while an older release writes a lane: it does not mark late events.
    """
    clock, lanes = unmarked(client, tables)
    if lanes:
        raise SinkError(
            f"lanes {', '.join(map(str, lanes))} were last written by a release that does not mark late events",
            remedy="upgrade every worker; periods can be closed once each lane has completed a batch",
        )
    found = first_period(clock, earliest_event(client, tables), delays)
    return None if found is None else Books(found[0].start, found[1])


def open_books(client: QueryClient, tables: TableNames, books: Books, release: str) -> None:
    """Write a proposal; of several the earliest counts. The server refuses it if it was too slow."""
    now = server_seconds(client)
    first, begin = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (books.first_period, books.begin))
    client.execute(
        f"INSERT INTO {tables.database}.period_books (first_period_start, books_begin, proposed_at, send_by, release) VALUES",
        [(first, begin, now, now + FENCE_SECONDS, release)],
        settings={"async_insert": 0},
        query_id=fenced_query_id(tables.database, f"books/{uuid4()}"),
    )


def opened_books(client: QueryClient, tables: TableNames, proposed_by: int) -> Books | None:
    """Return the books, by the proposals up to a second of the server's clock; None: there is none."""
    rows = client.execute(
        f"SELECT toUnixTimestamp(first_period_start), toUnixTimestamp(books_begin) FROM {tables.database}.period_books "
        f"WHERE proposed_at <= {proposed_by} ORDER BY proposed_at, first_period_start, books_begin LIMIT 1"
    )
    return Books(int(rows[0][0]) * 1000, int(rows[0][1]) * 1000) if rows else None
