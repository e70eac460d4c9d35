"""Whether the ledger adds up, and whether every table still says what it says: pure, on rows that were read.

*Conservation*: in each batch the records received are the sum of the classes, and `events`, `rollup_minute` and
`dead_letters`, counted again, hold exactly the records and the money that the ledger says.
*Continuity*: in each lane batch numbers count up by one, each range begins where the one before ended, and the watermark never goes back. Offsets that an operator gave up are ranges like any other, of class `lost`; after a switch to
another log (a new epoch), offsets start over.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from adledger.pipeline.ledger.totals import ClassMoney
from adledger.pipeline.log.epochs import same_offsets
from adledger.schemas.classes import CLASS_NAMES, Class
from adledger.schemas.digests import DEFINITIONS, WITH_AFTER_CLOSE
from adledger.schemas.wire import currency_text
from adledger.sinks.row_checksum import row_checksum
from adledger.sinks.sink import LedgerEntry

Kind = Literal["conservation", "continuity"]
Sums = Mapping[ClassMoney, tuple[int, int]]
"""(class code, currency code) -> records, money in nanos."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A ledger row as the table has it: the entry, and the checksum that was written with it."""

    entry: LedgerEntry
    checksum: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in one batch; `table` is the one to look at."""

    kind: Kind
    lane: int
    batch_no: int
    table: str
    what: str

    def __str__(self) -> str:
        return f"lane {self.lane}, batch {self.batch_no}, {self.table}: {self.what}"


@dataclass(frozen=True, slots=True)
class OffsetCount:
    """One topic's rows of a batch in `events` and `dead_letters` together: how many, of how many offsets, from, to.

    `last` is the last that a row covers: a dead letter may stand for a whole record batch.
    """

    topic: int
    rows: int
    distinct: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Recount:
    """One batch, counted again in the tables. Clocks are ms; 0 and 0 where the batch has no rows."""

    events: Sums
    rollups: Sums
    rollup_rows: int
    rollup_differences: int  # publisher-minutes in which events and rollup_minute disagree
    dead_letters: int  # the records that they stand for
    mispriced: int  # events whose money is not what their price makes it
    misplaced: int  # events that are marked as after close, and were not, or the reverse
    digests: Mapping[str, int]  # table -> digest of its rows, by the definition that the ledger row names
    offsets: Sequence[OffsetCount]
    clock_first: int
    clock_last: int

    def holds(self, table: str) -> bool:
        """Whether a table has rows of the batch."""
        rows = {
            "events": len(self.events),
            "rollup_minute": self.rollup_rows,
            "dead_letters": self.dead_letters,
        }
        return bool(rows.get(table, 0))


NOTHING = Recount({}, {}, 0, 0, 0, 0, 0, {}, (), 0, 0)
"""The recount of a batch that has no rows in any table."""


def check_entry(stored: StoredEntry) -> Iterator[Problem]:
    """Yield what is wrong within one ledger row."""
    entry = stored.entry

    def wrong(what: str) -> Problem:
        return Problem("conservation", entry.lane, entry.batch_no, "ledger", what)

    classes = sum(n for code, n in entry.counts.items() if code != Class.LOST)
    if entry.records_received != classes:
        yield wrong(f"{entry.records_received} records received, but its classes sum to {classes}")
    offsets = sum(r.end - r.start for r in entry.ranges)
    if entry.records_received > offsets:
        yield wrong(f"{entry.records_received} records received, but its ranges span only {offsets} offsets")
    lost = entry.counts.get(Class.LOST, 0)
    if lost and (entry.records_received or lost != offsets):
        yield wrong(
            f"{lost} offsets lost and {entry.records_received} records received, of {offsets} offsets"
        )
    for code in Class:
        said = entry.counts.get(code, 0)
        records = sum(m.records for m in entry.money if m.class_code == code)
        if records != said and code not in (Class.MALFORMED, Class.LOST):
            yield wrong(f"{said} records {CLASS_NAMES[code]}, but money of {records}")
    if row_checksum(entry) != stored.checksum:
        yield wrong("a figure was altered after it was written: it does not match the row checksum")


def check_continuity(entries: Sequence[LedgerEntry]) -> Iterator[Problem]:
    """Yield where one lane's entries, ordered by batch number, do not follow on from each other."""
    ends: dict[int, int] = {}
    for before, entry in pairwise((None, *entries)):
        assert entry is not None, "only the first has none before it"
        if before is not None and entry.batch_no == before.batch_no:
            yield _gap(entry, "there is more than one row for this batch")
            continue
        if before is not None:
            yield from _check_step(before, entry)
            if not same_offsets(before.epoch, entry.epoch):
                ends.clear()
        if entry.clock_after < entry.clock_before:
            yield _gap(entry, f"its clock goes back, from {entry.clock_before} to {entry.clock_after}")
        for r in entry.ranges:
            if r.end < r.start or r.start != ends.get(r.topic, r.start):
                end = ends.get(r.topic, r.start)
                yield _gap(
                    entry,
                    f"its range of topic {r.topic} is {r.start} to {r.end}, the one before ended at {end}",
                )
            ends[r.topic] = r.end


def _check_step(before: LedgerEntry, entry: LedgerEntry) -> Iterator[Problem]:
    if entry.batch_no != before.batch_no + 1:
        missing = entry.batch_no - before.batch_no - 1
        yield _gap(entry, f"batches before it are missing: {missing}, the one before is {before.batch_no}")
    if entry.clock_before != before.clock_after:
        yield _gap(
            entry, f"its clock begins at {entry.clock_before}, the one before ended at {before.clock_after}"
        )
    if entry.epoch != before.epoch and entry.records_received:
        yield _gap(
            entry,
            f"it is of another log ({entry.epoch} after {before.epoch}), and no operator override switched to it",
        )


def _gap(entry: LedgerEntry, what: str) -> Problem:
    return Problem("continuity", entry.lane, entry.batch_no, "ledger", what)


def check_tables(entry: LedgerEntry, found: Recount, dropped: Collection[str] = ()) -> Iterator[Problem]:
    """Yield where the tables, counted again, disagree with the ledger row.

    `dropped` are the tables whose rows of that day retention has dropped: they are skipped if they have no rows.
    """
    gone = {table for table in dropped if not found.holds(table)}
    faults = (
        _sum_faults(entry, found, gone),
        _row_faults(entry, found),
        _offset_faults(entry, found),
    )
    for table, what in (fault for of_kind in faults for fault in of_kind):
        if not gone & set(table.split(", ")):
            yield Problem("conservation", entry.lane, entry.batch_no, table, what)


def _sum_faults(entry: LedgerEntry, found: Recount, gone: set[str]) -> Iterator[tuple[str, str]]:
    """Yield (table, what is wrong) with records and money by class and currency."""
    ledger = {(m.class_code, m.currency_code): (m.records, m.money_nanos) for m in entry.money}
    sums = {"events": found.events, "rollup_minute": found.rollups}
    wrong = [table for table, found_sums in sums.items() if found_sums != ledger]
    if len(wrong) == len(sums) and found.events == found.rollups and not gone & set(sums):
        yield "ledger", f"events and rollup_minute agree on {_difference(found.events, ledger, 'it')}"
    else:
        yield from ((table, _difference(sums[table], ledger, "the ledger")) for table in wrong)
    if not wrong and found.rollup_differences:
        yield "events, rollup_minute", f"they disagree in {found.rollup_differences} publisher-minutes"


def _row_faults(entry: LedgerEntry, found: Recount) -> Iterator[tuple[str, str]]:
    """Yield (table, what is wrong) with single rows: one too few or too many, or one that was altered."""
    malformed = entry.counts.get(Class.MALFORMED, 0)
    if found.rollup_rows != entry.rollup_rows:
        yield "rollup_minute", f"{found.rollup_rows} rows, the ledger says {entry.rollup_rows}"
    if found.dead_letters != malformed:
        yield "dead_letters", f"its rows stand for {found.dead_letters} records, the ledger says {malformed}"
    if found.mispriced:
        yield "events", f"{found.mispriced} rows whose money is not what their price makes it"
    if found.misplaced and entry.digest_definition >= WITH_AFTER_CLOSE:
        yield (
            "events",
            f"{found.misplaced} rows whose AFTER_CLOSE flag is not what their period's close makes it",
        )
    if entry.digest_definition not in DEFINITIONS:
        newest = f"this release knows up to {max(DEFINITIONS)}"
        yield (
            "ledger",
            f"its digests follow definition {entry.digest_definition}, {newest}: a newer release can check them",
        )
        return
    for table, digest in (("events", entry.events_digest), ("dead_letters", entry.dead_letters_digest)):
        if found.digests.get(table, 0) != digest:
            yield table, "its rows are not those that were written: they do not match the batch's digest"


def _offset_faults(entry: LedgerEntry, found: Recount) -> Iterator[tuple[str, str]]:
    """Yield (table, what is wrong) with the offsets and clocks of the batch's rows."""
    both = "events, dead_letters"
    ranges = {r.topic: r for r in entry.ranges}
    for count in found.offsets:
        if count.distinct != count.rows:
            yield both, f"{count.rows - count.distinct} offsets of topic {count.topic} appear twice"
        r = ranges.get(count.topic)
        if r is None or count.first < r.start or count.last >= r.end:
            span = "no range" if r is None else f"the range {r.start} to {r.end - 1}"
            yield both, f"offsets {count.first} to {count.last} of topic {count.topic}, the ledger has {span}"
    if found.offsets and not (
        entry.clock_before <= found.clock_first <= found.clock_last == entry.clock_after
    ):
        clocks = f"watermarks from {found.clock_first} to {found.clock_last}"
        yield both, f"{clocks}, the ledger says after {entry.clock_before} and up to {entry.clock_after}"


def _difference(found: Sums, said: Sums, whose: str) -> str:
    parts = []
    for key in sorted({*found, *said}):
        here, there = found.get(key, (0, 0)), said.get(key, (0, 0))
        if here != there:
            name = f"{CLASS_NAMES.get(Class(key[0]), key[0])} {currency_text(key[1])}".strip()
            parts.append(
                f"{name} {here[0]} records and {here[1]} nanos, {whose} says {there[0]} and {there[1]}"
            )
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Unledgered:
    """Rows of a batch that has no ledger row. `send_by` is the last second that one of them may have arrived in."""

    table: str
    lane: int
    batch_no: int
    rows: int
    send_by: int


def check_unledgered(
    rows: Iterable[Unledgered], ledger_end: Mapping[int, int], now_seconds: int, patience_seconds: int
) -> Iterator[Problem]:
    """Yield the rows that no ledger row covers and that no worker is about to cover.

    The batch after a lane's last may be under way: it is left out until `patience_seconds` after its deadline.
    """
    for row in rows:
        next_batch = ledger_end.get(row.lane)
        under_way = next_batch is None or row.batch_no == next_batch + 1
        if not under_way or now_seconds > row.send_by + patience_seconds:
            what = f"{row.rows} rows without a ledger row"
            remedy = "; a worker that owns the lane would finish the batch" if under_way else ""
            yield Problem("conservation", row.lane, row.batch_no, row.table, what + remedy)
