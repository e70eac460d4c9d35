"""Examines the rules: the set in force and the published ones, lists and their ages, publishers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adledger.pipeline.doctor.report import Check
from adledger.pipeline.errors import SinkError, UsageError
from adledger.pipeline.findings import Finding
from adledger.pipeline.lanes.rules_in_force import snapshot
from adledger.pipeline.lists.facts import ListState
from adledger.pipeline.lists.load import Lists
from adledger.pipeline.lists.publishers import PublisherSnapshot, PublisherStatus
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.loader import NONE, PUBLISHED, load_evaluator, today
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode, RuleInput
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import Client
from adledger.sinks.rules import PUBLISHED_TRIED, PublishedRules, published_row, published_sql, publishers_sql

AREA = "rules"


@dataclass(frozen=True, slots=True)
class RulesFacts:
    """What ClickHouse holds: the newest published sets, the newest first, and (publisher id, status)."""

    published: Sequence[PublishedRules] = ()
    publishers: Sequence[tuple[int, str]] = ()


NO_TABLES = RulesFacts()
"""Before the first migration there is nothing to read, and the shipped set is in force."""


def read_tables(client: Client, database: str) -> RulesFacts:
    """Read the parts of the evaluators. Raises what the client raises."""
    if not client.execute(f"EXISTS TABLE {database}.rules")[0][0]:
        return NO_TABLES
    rows = client.execute(published_sql(database, PUBLISHED_TRIED))
    return RulesFacts([published_row(row) for row in rows], client.execute(publishers_sql(database)))


def rules_checks(settings: Settings, tables: RulesFacts | None) -> list[Check]:
    """Check that rules, lists and publishers can be loaded as a worker does it, and say what is then not evaluated.

    Without `tables` (they can't be read), only the rule file and the lists are checked.
    """
    if settings.rules == NONE:
        return [Check(AREA, "rules = none: every event that is no duplicate and in time is billable")]
    if tables is None:
        return _checks_without_tables(settings)
    try:
        publishers = snapshot(tables.publishers)
    except SinkError as error:
        return [Check(AREA, "publishers", [Finding(error.message, error.remedy)])]
    evaluator, what, refused = _in_force(settings, tables.published, publishers)
    if evaluator is None:
        return [Check(AREA, what, refused)]
    checks = [Check(AREA, what, [*refused, *_not_evaluated(evaluator)])]
    if evaluator.lists is not None:
        checks.append(_lists_check(evaluator.lists))
    suspended = sum(PublisherStatus[s.upper()] is PublisherStatus.SUSPENDED for _, s in tables.publishers)
    checks.append(Check(AREA, f"{len(publishers):,} publishers are known, {suspended:,} of them suspended"))
    return checks


def _checks_without_tables(settings: Settings) -> list[Check]:
    evaluator, what, refused = _in_force(settings, (), snapshot(()))
    unread = Check(AREA, "published rule sets and publishers", not_made="ClickHouse can't be used")
    if evaluator is None:
        return [Check(AREA, what, refused), unread]
    return [unread] if evaluator.lists is None else [unread, _lists_check(evaluator.lists)]


def _in_force(
    settings: Settings, published: Sequence[PublishedRules], publishers: PublisherSnapshot
) -> tuple[RuleEvaluator | None, str, list[Finding]]:
    """Return the evaluator that a worker would take (None: it would not start), what it is of, and the sets it refuses."""
    refused = []
    for row in published if settings.rules == PUBLISHED else ():
        try:
            rules = RuleSet.parse(row.text, f"the set of {row.author}")
            evaluator = load_evaluator(settings, today(), publishers, rules)
        except UsageError as error:
            found = f"the published set {row.version:016x} is refused: {error.message}"
            refused.append(
                Finding(found, f"{error.remedy}; then adledger rules lint FILE, adledger rules publish FILE")
            )
        else:
            return (
                evaluator,
                f"rules = published: {row.version:016x} by {row.author} is in force ({row.reason})",
                refused,
            )
    if refused:
        return None, "rules = published: none of the newest sets can be used, no worker starts", refused
    try:
        evaluator = load_evaluator(settings, today(), publishers)
    except UsageError as error:
        return None, f"rules = {settings.rules}", [Finding(error.message, error.remedy)]
    shipped = ": none published, so the rule set that adledger ships is in force"
    return evaluator, f"rules = {settings.rules}{shipped if settings.rules == PUBLISHED else ''}", []


def _not_evaluated(evaluator: RuleEvaluator) -> Iterator[Finding]:
    """Yield the rules that are run and can't be evaluated; without a list an attack is missed in silence otherwise."""
    for reason, why in evaluator.not_evaluated.items():
        of_publishers = RULES[reason].source == RuleInput.PUBLISHERS
        remedy = "adledger publishers import FILE" if of_publishers else "adledger lists status"
        mode = evaluator.effective.rules[reason].mode
        message = f"{reason.name} ({mode}) is not evaluated: {why}"
        yield Finding(message, remedy, advice=of_publishers or mode != Mode.ENFORCE)


def _lists_check(lists: Lists) -> Check:
    """Tell each list's age; one that ages should be renewed before its rules fall silent."""
    ages = ", ".join(
        f"{f.name} {'missing' if f.made is None else f'{f.age_days(lists.now)} days'}" for f in lists.facts
    )
    found = [
        Finding(
            f"the list {f.name} is {f.age_days(lists.now)} days old; from {f.age_days_max} on its rules say not evaluated",
            "upgrade what it is from, or renew the file: adledger lists status",
            advice=True,
        )
        for f in lists.facts
        if f.state(lists.now) is ListState.AGEING
    ]
    return Check(AREA, f"lists {lists.version}: {ages}", found)
