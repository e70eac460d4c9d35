"""Verdicts checked against their own reasons, the tables' sums, and the plain rules on a sample.

The generator's ground truth knows no rules, so it does not say which events are filtered. But a verdict follows from the
event's reasons and its evaluator version, the same money is in three tables, and the plain rules
(`adledger.pipeline.rules.plain`) evaluate stored events again, one by one.
"""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adledger.loadtest.verification.verify import FILTERED, ColumnarClient
from adledger.pipeline.explain.explain import Explainer
from adledger.pipeline.explain.store import Store
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.ledger.totals import Totals
from adledger.pipeline.lists.load import Lists
from adledger.pipeline.rules.registry import RULE_BITS, RULES
from adledger.schemas.classes import CLASS_NAMES, Class

EVALUATED = (Class.BILLABLE, *FILTERED)
SAMPLE_OF_HITS, SAMPLE_OF_REST = 3, 10
"""Events that are evaluated again: of each set of rules that hit any, and of those that none hit."""

_BITS = {code: sum(1 << r for r, rule in RULES.items() if rule.event_class == code) for code in FILTERED}


@dataclass(frozen=True, slots=True)
class VerdictCheck:
    """The result: a line for each error, and how many events the plain rules evaluated again."""

    wrong: tuple[str, ...]
    evaluated_again: int


def check_verdicts(client: ColumnarClient, database: str, ledger: Totals, lists: Lists) -> VerdictCheck:
    """Check all verdicts of a database; `ledger` is its ledger's totals. Raises what the client does."""
    tables = TableNames(database)
    store = Store(client, tables)
    explainer = Explainer(store, lists, store.publishers())
    sample = [explainer.explain(row) for row in store.sample(RULE_BITS, SAMPLE_OF_HITS, SAMPLE_OF_REST)]
    differing = (
        f"event {e.row.id_hash} of lane {e.row.lane}, batch {e.row.batch_no}: the plain rules differ in "
        f"{', '.join(r.name for r in e.differs)}"
        for e in sample
        if e.differs
    )
    wrong = (*_classes(client, tables), *_sums(client, tables, ledger), *differing)
    return VerdictCheck(wrong, len(sample))


def class_of(reasons: int, enforced: int) -> Class:
    """Return the class of an event in time that is no duplicate: general before sophisticated, by enforced rules."""
    return next((code for code in FILTERED if reasons & enforced & _BITS[code]), Class.BILLABLE)


def _classes(client: ColumnarClient, tables: TableNames) -> Iterator[str]:
    """Yield where an event's class does not follow from its reasons and from the rules that its evaluator enforced."""
    enforced: Mapping[int, int] = dict(
        client.execute(f"SELECT version, any(enforced) FROM {tables.database}.judges GROUP BY version")
    )
    for version, code, reasons, events in client.execute(
        f"SELECT judge_version, class_code, reasons, count() FROM {tables('events')} "
        f"WHERE class_code IN ({', '.join(f'{c:d}' for c in EVALUATED)}) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    ):
        due = class_of(reasons, enforced.get(version, 0))
        if due != code:
            names = CLASS_NAMES[Class(code)], CLASS_NAMES[due]
            yield f"events: {events:,} are {names[0]}, but reasons {reasons:x} under evaluator {version:016x} make them {names[1]}"


def _sums(client: ColumnarClient, tables: TableNames, ledger: Totals) -> Iterator[str]:
    """Yield where records or money of a class that rules decide are not the same in the ledger and in a table."""
    for table, records in (("events", "count()"), ("rollup_minute", "sum(records)")):
        found = {
            (code, currency): (int(number), int(nanos))
            for code, currency, number, nanos in client.execute(
                f"SELECT class_code, currency_code, {records}, sum(money_nanos) FROM {tables(table)} GROUP BY 1, 2"
            )
            if code in EVALUATED
        }
        due = {
            key: (number, ledger.nanos_by_currency.get(key, 0))
            for key, number in ledger.records_by_currency.items()
            if key[0] in EVALUATED and number
        }
        for key in sorted({*found, *due}):
            if found.get(key) != due.get(key):
                yield f"{table}: {CLASS_NAMES[Class(key[0])]} {found.get(key)} (records, nanos), in the ledger {due.get(key)}"
