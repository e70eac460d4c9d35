"""`adledger ledger check`: the ledger of any span read and checked, and the tables counted again against it.

Memory is bounded: ledger rows come a lane at a time, `LEDGER_ROWS_MAX` of them, and the tables are counted in spans
of at most `RECORDS_MAX` records.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline.ledger import queries
from adledger.pipeline.ledger.check import (
    NOTHING,
    Problem,
    StoredEntry,
    check_continuity,
    check_entry,
    check_tables,
    check_unledgered,
)
from adledger.pipeline.ledger.queries import BatchSpan, QueryClient, TableNames
from adledger.pipeline.ledger.totals import Totals
from adledger.schemas.periods import CloseDelays
from adledger.sinks.periods import close_delays
from adledger.sinks.sink import LedgerEntry

DAY_MS = 86_400_000
LEDGER_ROWS_MAX = 20_000
RECORDS_MAX = 4_000_000
PROBLEMS_MAX = 1_000
"""At this many the check stops looking: what is that wrong needs no longer list."""

PENDING_SECONDS_MAX = 60
"""How long after its deadline a batch without a ledger row counts as under way: doubt is resolved within it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to check: some lanes (none: all), and of them batches by number and by the clock at their end (ms)."""

    lanes: Sequence[int] = ()
    batch_first: int = 0
    batch_last: int | None = None
    clock_from: int | None = None
    clock_to: int | None = None

    @property
    def whole_lanes(self) -> bool:
        """Whether every batch of its lanes is in it."""
        return self == Scope(lanes=self.lanes)

    def where(self, lane: int, after_batch: int) -> str:
        """Return the condition for a lane's ledger rows of this scope above a batch number."""
        terms = [f"lane = {lane}", f"batch_no >= {max(self.batch_first, after_batch + 1)}"]
        if self.batch_last is not None:
            terms.append(f"batch_no <= {self.batch_last}")
        if self.clock_from is not None:
            terms.append(f"clock_after >= fromUnixTimestamp64Milli(toInt64({self.clock_from}))")
        if self.clock_to is not None:
            terms.append(f"clock_after < fromUnixTimestamp64Milli(toInt64({self.clock_to}))")
        return " AND ".join(terms)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a check found."""

    batches: int
    totals: Totals
    problems: Sequence[Problem]

    @property
    def conserved(self) -> bool:
        """Whether every record and every nano received is in exactly one class, in every table."""
        return not any(p.kind == "conservation" for p in self.problems)

    @property
    def continuous(self) -> bool:
        """Whether every batch begins where the one before it ended."""
        return not any(p.kind == "continuity" for p in self.problems)


def audit(client: QueryClient, tables: TableNames, scope: Scope, *, recount: bool) -> AuditReport:
    """Check the ledger, and with `recount` the tables against it. Raises what the client raises."""
    batches, totals, problems = 0, Totals.of(()), list[Problem]()
    known = queries.lanes(client, tables)
    look = _Look.of(client, tables) if recount else None
    for lane, _ in known:
        if scope.lanes and lane not in scope.lanes:
            continue
        before: LedgerEntry | None = None
        for stored in _pages(client, tables, scope, lane):
            page = [row.entry for row in stored]
            problems.extend(check_continuity(page if before is None else [before, *page]))
            problems.extend(p for row in stored for p in check_entry(row))
            if look is not None:
                problems.extend(_check_page(client, tables, page, look))
            batches, totals, before = batches + len(page), totals + Totals.of(page), page[-1]
            if len(problems) >= PROBLEMS_MAX:
                return AuditReport(batches, totals, problems[:PROBLEMS_MAX])
    if recount and scope.whole_lanes:
        problems.extend(_check_unledgered(client, tables, scope.lanes))
    return AuditReport(batches, totals, problems[:PROBLEMS_MAX])


def _check_unledgered(client: QueryClient, tables: TableNames, lanes: Sequence[int]) -> Iterator[Problem]:
    """Check the rows that no ledger row covers, while workers go on.

    Ends are read between two looks: a batch that was under way at the first is the lane's next one then, or it is in the
    ledger at the second.
    """
    first = list(queries.unledgered(client, tables, lanes))
    if not first:
        return
    ends = dict(queries.lanes(client, tables))
    still = {(row.table, row.lane, row.batch_no) for row in queries.unledgered(client, tables, lanes)}
    rows = [row for row in first if (row.table, row.lane, row.batch_no) in still]
    yield from check_unledgered(rows, ends, queries.server_seconds(client), PENDING_SECONDS_MAX)


def _pages(client: QueryClient, tables: TableNames, scope: Scope, lane: int) -> Iterator[list[StoredEntry]]:
    after = -1
    while page := queries.entries(client, tables, scope.where(lane, after), LEDGER_ROWS_MAX):
        yield page
        after = page[-1].entry.batch_no


@dataclass(frozen=True, slots=True)
class _Look:
    """What a recount depends on besides the ledger: the days that retention dropped, by table, and when periods close."""

    gone: Mapping[int, Collection[str]]
    delays: CloseDelays

    @classmethod
    def of(cls, client: QueryClient, tables: TableNames) -> "_Look":
        return cls(queries.dropped_days(client, tables), close_delays(client, tables.database))


def _check_page(
    client: QueryClient, tables: TableNames, page: Sequence[LedgerEntry], look: _Look
) -> Iterator[Problem]:
    for part in _parts(page):
        span = BatchSpan(part[0].lane, part[0].batch_no, part[-1].batch_no)
        found = queries.recounts(client, tables, span, part[0].digest_definition, look.delays)
        for entry in part:
            day = entry.clock_after // DAY_MS
            yield from check_tables(entry, found.get(entry.batch_no, NOTHING), look.gone.get(day, ()))


def _parts(page: Sequence[LedgerEntry]) -> Iterator[list[LedgerEntry]]:
    """Yield consecutive parts of one digest definition and at most RECORDS_MAX records, of at least one entry each."""
    part: list[LedgerEntry] = []
    records = 0
    for entry in page:
        too_long = records + entry.records_received > RECORDS_MAX
        if part and (too_long or entry.digest_definition != part[0].digest_definition):
            yield part
            part, records = [], 0
        part.append(entry)
        records += entry.records_received
    if part:
        yield part
