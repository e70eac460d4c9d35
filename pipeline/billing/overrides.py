"""Operator overrides that leave lanes out of periods: written under a deadline that the server enforces, read once it is over.

*Writing*: read the server's clock, then the ledger; refuse if the lane is past the first period's close; insert, to arrive
within FENCE_SECONDS of that clock. *Reading*: read the ledger, then the server's clock; wait until nothing that was
checked by then can still arrive; read. So two who close a period either both find an override, or both find the lane past
the close: one that was checked later would have found it too. The order in both must not change.
"""

# ruff: noqa: S608 - the name of the database is a setting with a pattern

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adledger.pipeline.billing.fence import FENCE_SECONDS, fenced_query_id
from adledger.pipeline.billing.marks import lane_ends
from adledger.pipeline.billing.plan import BillingPeriod, LaneLeftOut
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.ledger.queries import QueryClient, TableNames, server_seconds


@dataclass(frozen=True, slots=True)
class PeriodOverride:
    """A lane that is left out of the periods that begin from `first` to `last` (ms), after its batch `batch_no`."""

    override_id: str
    lane: int
    first: int
    last: int
    batch_no: int
    partitions: int
    reason: str
    author: str


def leave_out(
    client: QueryClient, tables: TableNames, lane: int, first: BillingPeriod, last: BillingPeriod, reason: str, author: str
) -> PeriodOverride:  # fmt: skip
    """Write an override. Raises SinkError if the server was too slow.

    Raises AdledgerError if there is no such lane, if it is past the first period's close, or if the last period's close is not
    past by the server's clock: what is written can't be taken back, and must not reach into the future.
    """
    checked_at = server_seconds(client)
    ends = lane_ends(client, tables, 0, (lane,))
    partitions = max((e.partitions for e in ends.values()), default=0)
    if lane >= partitions and lane not in ends:
        raise AdledgerError(
            f"the log has no lane {lane}: the ledger knows {partitions}, from 0",
            remedy="`adledger periods status` shows the lanes that hold periods open",
        )
    if checked_at * 1000 <= last.closes_at:
        raise AdledgerError(
            f"the period {iso(last.start)} has not reached its close, {iso(last.closes_at)}: it may still close with lane {lane}",
            remedy="name an earlier one, and leave the lane out of later ones once they are due: an override can't be undone",
        )
    end = ends.get(lane)
    if end is not None and end.clock > first.closes_at:
        raise AdledgerError(
            f"lane {lane} is past the close of the period {iso(first.start)}: it holds nothing open",
            remedy="`adledger periods status` shows the lanes that hold periods open",
        )
    batch_no = 0 if end is None else end.batch_no
    name = f"{lane}/{first.start}/{last.start}/{batch_no}/{checked_at}/{author}/{reason}"
    override = PeriodOverride(
        hashlib.sha256(name.encode()).hexdigest()[:32], lane, first.start, last.start, batch_no, partitions, reason, author,
    )  # fmt: skip
    client.execute(
        f"INSERT INTO {tables.database}.period_overrides (override_id, lane, first_period_start, last_period_start, "
        "batch_no, partitions, checked_at, send_by, reason, author) VALUES",
        [
            (
                override.override_id, lane, _date(first.start), _date(last.start), batch_no, partitions, checked_at,
                checked_at + FENCE_SECONDS, reason, author,
            )
        ],
        settings={"async_insert": 0},
        query_id=fenced_query_id(tables.database, override.override_id),
    )  # fmt: skip
    return override


def overrides_until(client: QueryClient, tables: TableNames, checked_by: int) -> list[PeriodOverride]:
    """Return the overrides that were checked by a second of the server's clock: the first of each comes first."""
    rows = client.execute(
        "SELECT override_id, lane, toUnixTimestamp(first_period_start), toUnixTimestamp(last_period_start), batch_no, "
        f"partitions, reason, author FROM {tables.database}.period_overrides WHERE checked_at <= {checked_by} "
        "ORDER BY checked_at, override_id"
    )
    return [
        PeriodOverride(
            name,
            int(lane),
            int(first) * 1000,
            int(last) * 1000,
            int(batch_no),
            int(partitions),
            reason,
            author,
        )
        for name, lane, first, last, batch_no, partitions, reason, author in rows
    ]


def of_period(overrides: Sequence[PeriodOverride], period: BillingPeriod) -> Mapping[int, LaneLeftOut]:
    """Return the lanes that are left out of a period; of several overrides the first one counts."""
    found: dict[int, LaneLeftOut] = {}
    for o in overrides:
        if o.first <= period.start <= o.last:
            found.setdefault(o.lane, LaneLeftOut(o.override_id, o.batch_no, o.partitions))
    return found


def iso(ms: int) -> str:
    """Return a time (ms) as text, UTC, to the minute."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
