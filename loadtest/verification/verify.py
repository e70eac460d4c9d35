"""Verification: every table against the ground truth, row by row, to the nano; and each difference explained by event.

The ground truth knows no rules. Where rules ran, filtered events are compared as billable (`before_rules`), and
`adledger.loadtest.verification.verdicts` checks the verdicts themselves.
"""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from adledger.loadtest.traffic.expected_records import ExpectedRecords
from adledger.loadtest.traffic.ground_truth import CLASSES, REASONS, ROLLUP, GroundTruth
from adledger.loadtest.traffic.kernels.shapes import I64, Records
from adledger.loadtest.verification.differences import (
    RollupDifference,
    differences,
    differing,
    publisher_spans,
)
from adledger.loadtest.verification.explain import explain
from adledger.pipeline.ledger.queries import TableNames, totals
from adledger.pipeline.ledger.totals import ClassMoney, Totals
from adledger.schemas.classes import CLASS_NAMES, Class, Reason
from adledger.schemas.wire import Malformed, currency_text

DIFFERENCES_MAX = 50
"""Rows that are listed and explained; all are counted."""

FILTERED = (Class.GIVT, Class.SIVT)
BEFORE_RULES = f"if(class_code IN ({Class.GIVT:d}, {Class.SIVT:d}), {Class.BILLABLE:d}, class_code)"
"""The class of an event or a rollup row (SQL) as if there were no rules."""


class ColumnarClient(Protocol):
    """The part of adledger.sinks.connection.Client that verification uses."""

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        """Return the rows of a SELECT as tuples."""

    def columns(self, query: str) -> list[Any] | None:
        """Return the columns of a SELECT as arrays, or None where there are no rows."""


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What verification found.

    `totals` are the ledger's, unchanged; `before_rules`: they were compared with givt and sivt counted as billable
    (`counted_as_billable`). `wrong_counts` say in words which counts differ from the ground truth, `differences` are the
    first of the `rows_wrong` wrong publisher-minute rows, `explanations` what happened to their events.
    """

    ground_truth: GroundTruth
    totals: Totals
    rows_compared: int
    rows_wrong: int
    wrong_counts: tuple[str, ...]
    differences: tuple[RollupDifference, ...]
    explanations: tuple[str, ...]
    before_rules: bool = False

    @property
    def equal(self) -> bool:
        """Whether everything is as expected."""
        return not self.rows_wrong and not self.wrong_counts


def verify(
    ground_truth: GroundTruth,
    client: ColumnarClient,
    database: str,
    records: Sequence[ExpectedRecords] = (),
    *,
    before_rules: bool = False,
) -> VerificationReport:
    """Compare the ledger, `rollup_minute`, `events` and `dead_letters` with the ground truth of the whole log.

    `records` explain differences by event; differences in other records are not explained. `before_rules`: rules ran, and
    what they filtered is compared as billable. Raises the client's errors.
    """
    tables = TableNames(database)
    ledger = totals(client, tables)
    compared = counted_as_billable(ledger) if before_rules else ledger
    class_code = BEFORE_RULES if before_rules else "class_code"
    wrong = [
        *_ledger_differences(ground_truth, compared), *_count_differences(ground_truth, client, tables, class_code),
    ]  # fmt: skip
    rows_wrong, found = 0, list[RollupDifference]()
    for table, records_of_row in (("rollup_minute", "sum(records)"), ("events", "count()")):
        for span in publisher_spans(ground_truth.rollup):
            in_span = (ground_truth.rollup["publisher_id"] >= span[0]) & (
                ground_truth.rollup["publisher_id"] < span[1]
            )
            expected, stored = (
                ground_truth.rollup[in_span],
                _stored(client, tables, table, records_of_row, class_code, span),
            )
            keys = differing(expected, stored)
            rows_wrong += len(keys)
            room = DIFFERENCES_MAX - len(found)
            found += differences(table, expected, stored, keys[:room])
    explanations = explain(found, client, tables, records, class_code) if found or wrong else []
    return VerificationReport(
        ground_truth, ledger, len(ground_truth.rollup), rows_wrong, tuple(wrong), tuple(found), tuple(explanations), before_rules
    )  # fmt: skip


def counted_as_billable(ledger: Totals) -> Totals:
    """Return totals with what rules filtered counted as billable."""

    def moved(amounts: Mapping[ClassMoney, int]) -> dict[ClassMoney, int]:
        sums: Counter[ClassMoney] = Counter()
        for (code, currency), amount in amounts.items():
            sums[Class.BILLABLE if code in FILTERED else code, currency] += amount
        return dict(sums)

    records: Counter[int] = Counter()
    for code, number in ledger.records.items():
        records[Class.BILLABLE if code in FILTERED else code] += number
    return Totals(
        ledger.records_received, records, moved(ledger.records_by_currency), moved(ledger.nanos_by_currency)
    )


def _stored(
    client: ColumnarClient,
    tables: TableNames,
    table: str,
    records: str,
    class_code: str,
    span: tuple[int, int],
) -> Records:
    """Return a table's rows of a span of publishers, added up over lanes and batches (ROLLUP, sorted)."""
    minute = "minute" if table == "rollup_minute" else "toStartOfMinute(event_time)"
    columns = client.columns(
        f"SELECT publisher_id, toUnixTimestamp({minute}) AS m, event_type_code, {class_code} AS code, currency_code, "
        f"toInt64({records}), sum(money_nanos) FROM {tables(table)} "
        f"WHERE publisher_id >= {span[0]:d} AND publisher_id < {span[1]:d} "
        "GROUP BY publisher_id, m, event_type_code, code, currency_code "
        "ORDER BY publisher_id, m, event_type_code, code, currency_code"
    )
    rollup = np.empty(len(columns[0]) if columns else 0, ROLLUP)
    for name, column in zip(ROLLUP.names or (), columns or (), strict=bool(columns)):
        rollup[name] = column
    return rollup


def _ledger_differences(ground_truth: GroundTruth, ledger: Totals) -> list[str]:
    """Return where the ledger's totals differ from the ground truth: received, each class, each class's money."""
    wrong = []
    if ledger.records_received != ground_truth.records_received:
        wrong.append(
            f"ledger: {ledger.records_received:,} records received, not {ground_truth.records_received:,}"
        )
    expected_classes = ground_truth.classes.sum(axis=0)
    for code in Class:
        found, expected = ledger.records.get(code, 0), int(expected_classes[code])
        if found != expected:
            wrong.append(f"ledger: {found:,} records {CLASS_NAMES[code]}, not {expected:,}")
    money = ground_truth.money()
    for key in sorted({*money, *ledger.nanos_by_currency}):
        nanos, due = ledger.nanos_by_currency.get(key, 0), money.get(key, (0, 0))[1]
        if nanos != due:
            of_class = f"{CLASS_NAMES[Class(key[0])]} in {currency_text(key[1])}"
            wrong.append(f"ledger: {nanos:,} nanos {of_class}, not {due:,}")
    return wrong


def _count_differences(
    ground_truth: GroundTruth, client: ColumnarClient, tables: TableNames, class_code: str
) -> list[str]:
    """Return where counts by lane, or of dead letters by reason, differ from the ground truth."""
    lanes = len(ground_truth.misrouted)
    classes = np.zeros((lanes, CLASSES), np.int64)
    misrouted, conflicts = np.zeros((2, lanes), np.int64)
    for lane, code, records, flagged, conflicting in client.execute(
        f"SELECT lane, {class_code} AS code, count(), countIf(bitTest(reasons, {Reason.MISROUTED:d})), "
        f"countIf(bitTest(reasons, {Reason.DUPLICATE_CONFLICT:d})) FROM {tables('events')} GROUP BY lane, code"
    ):
        classes[lane, code] = records
        misrouted[lane] += flagged
        conflicts[lane] += conflicting
    malformed = np.zeros(REASONS, np.int64)
    for lane, reason, records in client.execute(
        f"SELECT lane, reason_code, sum(records) FROM {tables('dead_letters')} GROUP BY lane, reason_code"
    ):
        classes[lane, Class.MALFORMED] += records
        malformed[reason] += records
    return [
        *_unequal(lambda lane, code: f"{CLASS_NAMES[Class(code)]} records of lane {lane}", classes, ground_truth.classes),
        *_unequal(lambda lane: f"misrouted records of lane {lane}", misrouted, ground_truth.misrouted),
        *_unequal(lambda lane: f"conflicting duplicates of lane {lane}", conflicts, ground_truth.conflicts),
        *_unequal(lambda reason: f"dead letters for {Malformed(reason).name}", malformed, ground_truth.malformed),
    ]  # fmt: skip


def _unequal(what: Callable[..., str], found: I64, expected: I64) -> list[str]:
    places = np.argwhere(found != expected).tolist()
    return [f"{what(*at)}: {found[tuple(at)]:,}, not {expected[tuple(at)]:,}" for at in places]
