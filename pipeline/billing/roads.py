"""Two roads to sums of some batches, compared with each other and with the ledger: nothing is billed unless all three agree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline.billing import sums
from adledger.pipeline.billing.closings import StoredSums
from adledger.pipeline.billing.marks import Covered
from adledger.pipeline.billing.overrides import iso
from adledger.pipeline.billing.plan import BillingPeriod
from adledger.pipeline.billing.sums import Road, SumSource
from adledger.pipeline.errors import SinkError
from adledger.pipeline.ledger.queries import BatchSpan, QueryClient
from adledger.pipeline.ledger.totals import money_text
from adledger.schemas.classes import CLASS_NAMES, Class
from adledger.schemas.wire import currency_text

DIFFERENCES_MAX = 20
"""At most this many differing sums, and batches behind them, are named."""

NOTHING = StoredSums(0, 0, 0, 0)

SumQuery = Callable[[Road, SumSource, BillingPeriod, Sequence[BatchSpan], Covered], str]
"""What makes a query of sums: sums.final_sums or sums.late_sums."""


class RoadsDiffer(SinkError):  # noqa: N818 - an outcome
    """Sums of batches by `rollup_minute`, by `events` and by the ledger are not the same; nothing was written."""


@dataclass(frozen=True, slots=True)
class Summed:
    """Sums of a period over some batches: their query, its columns, and what the ledger has of the batches (None: there are none)."""

    source: SumSource
    period: BillingPeriod
    spans: Sequence[BatchSpan]
    of: Covered | None
    query: SumQuery
    columns: Sequence[str]

    def by(self, road: Road) -> str:
        """Return the SQL of the sums, by a road."""
        assert self.of is not None
        return self.query(road, self.source, self.period, self.spans, self.of)


def agreed(client: QueryClient, summed: Summed) -> StoredSums:
    """Return the summary of sums that both roads give. Raises RoadsDiffer naming what differs, and the batches."""
    if summed.of is None:
        return NOTHING
    by_stream, by_events = (summed.by(road) for road in Road)
    found = summary(client, by_stream, summed.columns)
    if found == summary(client, by_events, summed.columns):
        for road in Road:
            _check_ledger(client, summed, summed.of, road)
        return found
    keys = summed.columns.index("publisher_id")
    rows = client.execute(sums.differences(by_stream, by_events, summed.columns, DIFFERENCES_MAX))
    publishers = sorted({int(row[keys]) for row in rows})
    batches = client.execute(
        sums.batch_differences(
            summed.source, summed.period, summed.spans, summed.of, publishers, DIFFERENCES_MAX
        )
    )
    raise RoadsDiffer(
        f"the period {iso(summed.period.start)} is not closed: rollup_minute and events differ in {len(rows)} sums"
        f"{' or more' if len(rows) == DIFFERENCES_MAX else ''}, of publishers {', '.join(map(str, publishers))}; in "
        + ", ".join(f"lane {lane} batch {batch_no}" for lane, batch_no in sorted({b[:2] for b in batches})),
        remedy="adledger ledger check --lane N --from-batch N --to-batch N shows which table was altered",
    )


def summary(client: QueryClient, query: str, columns: Sequence[str]) -> StoredSums:
    """Return rows, records, nanos and digest of a query of sums."""
    return StoredSums(*map(int, client.execute(sums.summary(query, columns))[0]))


def _check_ledger(client: QueryClient, summed: Summed, of: Covered, road: Road) -> None:
    """Raise RoadsDiffer unless a table has the ledger's events and money of the batches: both tables may be wrong alike."""
    rows = client.execute(sums.by_class(road, summed.source, summed.spans, of))
    found = {(int(code), int(currency)): (int(n), int(nanos)) for code, currency, n, nanos in rows}
    if found == of.sums:
        return
    events = sum(n for n, _ in found.values())
    at = f"the period {iso(summed.period.start)} is not closed: {road}"
    if events != of.events:
        raise RoadsDiffer(
            f"{at} has {events} events of its batches, the ledger {of.events}; retention dropped days that it needs, or rows "
            "were removed",
            remedy="adledger ledger check names the batches; raise retention_events_days before the next days are dropped",
        )
    raise RoadsDiffer(
        f"{at} has {_first_difference(found, of.sums)}",
        remedy="adledger ledger check names the batches that were altered",
    )


_ByClass = Mapping[tuple[int, int], tuple[int, int]]


def _first_difference(found: _ByClass, ledger: _ByClass) -> str:
    nothing = (0, 0)
    keys = found.keys() | ledger.keys()
    code, currency = min(key for key in keys if found.get(key, nothing) != ledger.get(key, nothing))
    (records, nanos), (events, money) = found.get((code, currency), nothing), ledger.get((code, currency), nothing)  # fmt: skip
    return (
        f"{records} {CLASS_NAMES[Class(code)]} events with {money_text(nanos)} {currency_text(currency)} in its batches, the "
        f"ledger {events} with {money_text(money)}"
    )
