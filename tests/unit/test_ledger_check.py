"""The ledger check, on rows: consistent rows pass, and any single alteration is found in its batch."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.ledger.check import (
    NOTHING,
    OffsetCount,
    Recount,
    StoredEntry,
    Unledgered,
    check_continuity,
    check_entry,
    check_tables,
    check_unledgered,
)
from adledger.pipeline.ledger.totals import LedgerSummary, Totals, class_rows, class_summary, money_text
from adledger.schemas.classes import Class
from adledger.schemas.digests import FIRST, WITH_AFTER_CLOSE
from adledger.schemas.wire import currency_code
from adledger.sinks.row_checksum import row_checksum
from adledger.sinks.sink import LedgerEntry, Money, OffsetRange
from tests.contracts import sink_suite

USD, EUR = currency_code("USD"), currency_code("EUR")
OLDER_CHECKSUM = 17_886_949_024_769_405_116
"""What the release before leader epochs computed for `sink_suite.entry(3, 7)`."""
DECODABLE = (Class.BILLABLE, Class.DUPLICATE, Class.GIVT, Class.SIVT, Class.EXPIRED)


def entry_of(batch_no: int, starts: list[int], clock: int, drawn) -> LedgerEntry:
    """Return a consistent ledger row: sums as drawn, ranges and watermark continuing the previous row."""
    sums, malformed, gaps, elapsed = drawn
    money = tuple(Money(c, u, r, m) for (c, u), (r, m) in sorted(sums.items()))
    counts = {int(c): n for c in DECODABLE if (n := sum(m.records for m in money if m.class_code == c))}
    if malformed:
        counts[Class.MALFORMED] = malformed
    received = sum(counts.values())
    ranges = (
        OffsetRange(0, starts[0], starts[0] + received + gaps),
        OffsetRange(1, starts[1], starts[1] + gaps),
    )
    return LedgerEntry(
        3, batch_no, "epoch", ranges, clock, 0, 0, clock, clock + elapsed, received, counts, money, 1, len(money),
        events_digest=received, dead_letters_digest=malformed,
    )  # fmt: skip


sums = st.dictionaries(
    st.tuples(st.sampled_from(DECODABLE), st.sampled_from([USD, EUR])),
    st.tuples(st.integers(1, 10**6), st.integers(0, 10**15)),
)
drawn_batch = st.tuples(sums, st.integers(0, 1000), st.integers(0, 5), st.integers(0, 10**6))


@st.composite
def lane_of_batches(draw) -> list[LedgerEntry]:
    entries: list[LedgerEntry] = []
    starts, clock, first = [0, 7], 1_000, draw(st.integers(0, 9))
    for drawn in draw(st.lists(drawn_batch, min_size=1, max_size=6)):
        entry = entry_of(first + len(entries), starts, clock, drawn)
        starts, clock = [r.end for r in entry.ranges], entry.clock_after
        entries.append(entry)
    return entries


def stored(entry: LedgerEntry) -> StoredEntry:
    return StoredEntry(entry, row_checksum(entry))


def counted(entry: LedgerEntry) -> Recount:
    """Return what the tables of this entry hold when nothing is wrong."""
    money = {(m.class_code, m.currency_code): (m.records, m.money_nanos) for m in entry.money}
    n = entry.records_received
    start = entry.ranges[0].start
    offsets = (OffsetCount(0, n, n, start, start + n - 1),) if n else ()
    first, last = (entry.clock_before, entry.clock_after) if n else (0, 0)
    digests = {"events": entry.events_digest, "dead_letters": entry.dead_letters_digest}
    return Recount(
        money, money, len(money), 0, entry.counts.get(Class.MALFORMED, 0), 0, 0, digests, offsets, first, last
    )


@given(lane_of_batches())
def test_a_consistent_lane_passes(entries):
    """A lane whose batches follow on one another, and whose tables agree, has no problem."""
    assert list(check_continuity(entries)) == []
    for entry in entries:
        assert [*check_entry(stored(entry)), *check_tables(entry, counted(entry))] == []


@given(lane_of_batches(), st.data())
def test_a_batch_missing_or_doubled_is_found(entries, data):
    """A ledger row that is deleted from the middle, or added twice, is found at its position."""
    at = data.draw(st.integers(0, len(entries) - 1))
    doubled = [*entries[: at + 1], entries[at], *entries[at + 1 :]]
    assert entries[at].batch_no in {p.batch_no for p in check_continuity(doubled)}
    if 0 < at < len(entries) - 1:
        missing = entries[:at] + entries[at + 1 :]
        assert entries[at + 1].batch_no in {p.batch_no for p in check_continuity(missing)}


TAMPERED_ROWS = {
    "records received": lambda e: replace(e, records_received=e.records_received + 1),
    "a class": lambda e: replace(e, counts={**e.counts, Class.GIVT: e.counts.get(Class.GIVT, 0) + 1}),
    "money": lambda e: replace(e, money=(*e.money, Money(Class.SIVT, 1, 0, 5))),
    "money's records": lambda e: replace(e, money=(*e.money, Money(Class.SIVT, 1, 1, 0))),
    "rollup rows": lambda e: replace(e, rollup_rows=e.rollup_rows + 1),
    "cut": lambda e: replace(e, cut_offset=e.cut_offset + 1),
    "epoch": lambda e: replace(e, epoch="another"),
    "judge version": lambda e: replace(e, judge_version=2),
    "leader epochs": lambda e: replace(e, leader_epochs=(0, 0)),
    "digest definition": lambda e: replace(e, digest_definition=e.digest_definition + 1),
    "malformed": lambda e: replace(
        e,
        records_received=e.records_received + 1,
        counts={**e.counts, Class.MALFORMED: e.counts.get(Class.MALFORMED, 0) + 1},
    ),
}


@pytest.mark.parametrize("what", TAMPERED_ROWS)
@given(drawn=drawn_batch)
def test_a_ledger_row_altered_is_found(what, drawn):
    """Any altered figure of a ledger row disagrees with its checksum or with the tables."""
    entry = entry_of(1, [0, 0], 0, drawn)
    altered = TAMPERED_ROWS[what](entry)
    problems = [
        *check_entry(StoredEntry(altered, row_checksum(entry))),
        *check_tables(altered, counted(entry)),
    ]
    assert problems
    assert all(p.kind == "conservation" and (p.lane, p.batch_no) == (3, 1) for p in problems)


def test_rows_of_before_leader_epochs_keep_their_checksum():
    """A row without leader epochs has the checksum of the releases before them; each epoch changes it.

    So it is with the first digest definition, the one of releases that did not name it.
    """
    older = sink_suite.entry(3, 7)
    assert row_checksum(older) == OLDER_CHECKSUM
    with_epochs = [replace(older, leader_epochs=epochs) for epochs in ((-1, 0), (0, -1), (0, 0), (0, 1))]
    with_definitions = [replace(older, digest_definition=number) for number in (2, 3)]
    assert len({row_checksum(entry) for entry in (older, *with_epochs, *with_definitions)}) == 7


def test_digests_of_an_unknown_definition_are_not_called_altered():
    """A newer release's ledger row says what can check it; the rows it vouches for are not blamed."""
    newer = replace(ENTRY, digest_definition=200)
    (problem,) = check_tables(newer, replace(GOOD, digests={}))
    assert problem.table == "ledger"
    assert "definition 200" in problem.what
    assert "a newer release can check them" in problem.what


@given(drawn=drawn_batch, what=st.sampled_from(["start", "end", "before", "after"]), by=st.integers(1, 9))
def test_altered_ranges_and_watermarks_are_found(drawn, what, by):
    """An altered range or watermark no longer joins its neighbours."""
    one = entry_of(1, [0, 0], 0, drawn)
    ends = [r.end for r in one.ranges]
    two = entry_of(2, ends, one.clock_after, drawn)
    three = entry_of(3, [r.end for r in two.ranges], two.clock_after, drawn)
    r, rest = two.ranges[0], two.ranges[1:]
    altered = {
        "start": lambda: replace(two, ranges=(replace(r, start=r.start + by), *rest)),
        "end": lambda: replace(two, ranges=(replace(r, end=r.end + by), *rest)),
        "before": lambda: replace(two, clock_before=two.clock_before - by),
        "after": lambda: replace(two, clock_after=two.clock_after + by),
    }[what]()
    problems = list(check_continuity([one, altered, three]))
    assert problems
    assert all(p.kind == "continuity" and p.batch_no in (2, 3) for p in problems)


ENTRY = entry_of(
    9, [100, 0], 5_000, ({(Class.BILLABLE, USD): (10, 1_000), (Class.DUPLICATE, USD): (2, 200)}, 3, 0, 60)
)
GOOD = counted(ENTRY)
FEWER = {**GOOD.events, (Class.BILLABLE, USD): (9, 900)}
TAMPERED_TABLES = {
    "event deleted": ("events", replace(GOOD, events=FEWER)),
    "event's class altered": (
        "events",
        replace(GOOD, events={(Class.BILLABLE, USD): (11, 1_100), (Class.DUPLICATE, USD): (1, 100)}),
    ),
    "event's money altered": (
        "events",
        replace(GOOD, events={**GOOD.events, (Class.BILLABLE, USD): (10, 999)}),
    ),
    "event's currency altered": ("events", replace(GOOD, events={**FEWER, (Class.BILLABLE, EUR): (1, 100)})),
    "event's price altered": ("events", replace(GOOD, mispriced=1)),
    "event's user altered": ("events", replace(GOOD, digests={**GOOD.digests, "events": 1})),
    "dead letter's bytes altered": (
        "dead_letters",
        replace(GOOD, digests={**GOOD.digests, "dead_letters": 0}),
    ),
    "event added twice": ("events, dead_letters", replace(GOOD, offsets=(OffsetCount(0, 16, 15, 100, 114),))),
    "event moved": ("events, dead_letters", replace(GOOD, offsets=(OffsetCount(0, 15, 15, 99, 114),))),
    "event of another topic": (
        "events, dead_letters",
        replace(GOOD, offsets=(*GOOD.offsets, OffsetCount(2, 1, 1, 0, 0))),
    ),
    "clock altered": ("events, dead_letters", replace(GOOD, clock_first=4_999)),
    "rollup deleted": ("rollup_minute", replace(GOOD, rollups=FEWER)),
    "rollup added twice": ("rollup_minute", replace(GOOD, rollup_rows=3)),
    "rollup's publisher altered": ("events, rollup_minute", replace(GOOD, rollup_differences=2)),
    "dead letter deleted": ("dead_letters", replace(GOOD, dead_letters=2)),
    "dead letter added": ("dead_letters", replace(GOOD, dead_letters=4)),
    "everything deleted": ("ledger", NOTHING),
}


@pytest.mark.parametrize("what", TAMPERED_TABLES)
def test_a_table_altered_is_found_and_named(what):
    """Each way to alter a table is found, and the right table is named."""
    table, found = TAMPERED_TABLES[what]
    problems = list(check_tables(ENTRY, found))
    assert table in {p.table for p in problems}
    assert {(p.kind, p.lane, p.batch_no) for p in problems} == {("conservation", 3, 9)}


def test_events_in_the_wrong_book_are_found_where_the_flag_follows_the_rule():
    """From definition 2 on, AFTER_CLOSE is as the period's close makes it; rows from before have no such flag."""
    found = replace(GOOD, misplaced=3)
    (problem,) = check_tables(replace(ENTRY, digest_definition=WITH_AFTER_CLOSE), found)
    assert (problem.table, problem.what[:7]) == ("events", "3 rows ")
    assert not list(check_tables(replace(ENTRY, digest_definition=FIRST), found))


def test_where_both_tables_agree_the_ledger_is_blamed():
    """Two against one: where events and rollups agree, the ledger row is suspect."""
    (problem,) = check_tables(ENTRY, replace(GOOD, events=FEWER, rollups=FEWER))
    assert problem.table == "ledger"
    assert "billable USD 9 records and 900 nanos, it says 10 and 1000" in problem.what


def test_a_batch_under_way_is_not_a_problem():
    """The batch after the last may be in progress until well past its deadline; any other row is wrong."""
    rows = [Unledgered("events", 0, 8, 5, 1_000), Unledgered("events", 1, 1, 5, 1_000)]
    assert list(check_unledgered(rows, {0: 7}, now_seconds=1_060, patience_seconds=60)) == []
    late = list(check_unledgered(rows, {0: 7}, now_seconds=1_061, patience_seconds=60))
    assert [(p.lane, p.batch_no) for p in late] == [(0, 8), (1, 1)]
    beyond = check_unledgered([Unledgered("events", 0, 9, 5, 1_000)], {0: 7}, 900, 60)
    assert [p.batch_no for p in beyond] == [9]


@given(st.lists(drawn_batch, max_size=4), st.lists(drawn_batch, max_size=4))
def test_totals_of_parts_are_the_totals_of_the_whole(a, b):
    """Sums may be taken over any parts."""
    one = [entry_of(i, [0, 0], 0, drawn) for i, drawn in enumerate(a)]
    two = [entry_of(i, [0, 0], 0, drawn) for i, drawn in enumerate(b)]
    assert Totals.of(one) + Totals.of(two) == Totals.of(one + two)
    assert Totals.of(one).conserved


def test_money_of_several_currencies_is_never_summed():
    """A figure over two currencies is null beside the figures by currency; the money of malformed records is unknown."""
    one = entry_of(1, [0, 0], 0, ({(Class.BILLABLE, USD): (1, 5)}, 2, 0, 0))
    two = entry_of(2, [0, 0], 0, ({(Class.BILLABLE, EUR): (1, 7)}, 0, 0, 0))
    alone = class_summary(Totals.of([one]))
    assert alone["billable"] == {"records": 1, "money_nanos": 5, "money_by_currency": {"USD": 5}}
    assert alone["givt"] == {"records": 0, "money_nanos": 0, "money_by_currency": {}}
    assert alone["malformed"]["money_nanos"] is None
    both = class_summary(Totals.of([one, two]))["billable"]
    assert both == {"records": 2, "money_nanos": None, "money_by_currency": {"EUR": 7, "USD": 5}}


def test_money_is_printed_exactly():
    """Money is shown to the nano, one row for each class and currency; what has no money shows none."""
    assert [money_text(n) for n in (0, 1, -1, 1_234_500_000_000)] == [
        "0.000000000", "0.000000001", "-0.000000001", "1,234.500000000",
    ]  # fmt: skip
    entry = entry_of(1, [0, 0], 0, ({(Class.BILLABLE, USD): (1, 5), (Class.BILLABLE, EUR): (2, 7)}, 3, 0, 0))
    rows = class_rows(Totals.of([entry]))
    assert rows[:2] == [("billable", 2, "0.000000007", "EUR"), ("billable", 1, "0.000000005", "USD")]
    assert ("malformed", 3, None, "") in rows
    assert sum(records for _, records, _, _ in rows) == entry.records_received


def test_summary_has_the_keys_that_scripts_read():
    """The object of `--json` has these keys."""
    made = LedgerSummary(Totals.of([]), conserved=True, continuous=True).as_json()
    assert list(made) == [
        "records_received", "classes", "conserved", "continuous", "events_per_second", "cpu_seconds",
    ]  # fmt: skip
    assert set(made["classes"]) == {"billable", "duplicate", "givt", "sivt", "expired", "malformed", "lost"}
