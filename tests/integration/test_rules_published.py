"""Rule sets as data in a running worker: stored before use, changed between batches, demoted by guardrails."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.rules_in_force import Loading, RulesInForce
from adledger.pipeline.lists.publishers import PublisherSnapshot
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.loader import load_rules
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason
from adledger.sinks.memory import SinkFaults
from adledger.sinks.rules import AlertKind, AlertRow, PublishedRules
from adledger.sinks.sink import Stamp
from tests.integration.test_doubt import CRASH_AFTER, CRASH_BEFORE, FateOf, Fates, Runs, assert_as_undisturbed
from tests.integration.test_rules_restart import MODEL, RULES
from tests.support.rule_sets import rule_set
from tests.support.rule_store import MemoryRules

pytestmark = pytest.mark.usefixtures("without_pauses")

PUBLISHED_AFTER = 3
"""The batch after whose ledger row something is published."""

STRICTER = dataclasses.replace(
    RULES,
    rules={
        r: dataclasses.replace(s, params={**s.params, "clicks_max": 1, "events_max": 3} if r == Reason.USER_VELOCITY else s.params)
        for r, s in RULES.rules.items()
    },
)  # fmt: skip
LONGER = dataclasses.replace(
    RULES,
    rules={
        r: dataclasses.replace(s, params={**s.params, "horizon_minutes": 55} if "horizon_minutes" in s.params else s.params)
        for r, s in RULES.rules.items()
    },
)  # fmt: skip


SHIPPED = rule_set(TEST_TRAFFIC={})
"""Replaces the rule set that adledger ships."""


class Stored(FilesSource):
    """A log that refuses commits unless the evaluator that an intent names is stored."""

    rules: MemoryRules

    async def commit(self, assignment: Assignment, offsets: Mapping[int, Committed]) -> None:
        for committed in offsets.values():
            named = Intent.parse(committed.metadata, "a test").judge_version
            assert named in self.rules.evaluators, "an evaluator is stored before an intent names it"
        await super().commit(assignment, offsets)


class AfterBatch(SinkFaults):
    """Does something when a batch's ledger row is stored, before the lane goes on."""

    def __init__(self, batch_no: int, act: Callable[[], object]) -> None:
        self._batch_no, self._act = batch_no, act

    async def reply(self, table: str, stamp: Stamp) -> None:
        if table == "ledger" and stamp.batch_no == self._batch_no:
            found = self._act()
            if asyncio.iscoroutine(found):
                await found


class Published(Runs):
    """Workers that use published sets."""

    def __init__(self, log: Path, rules: RuleSet | None) -> None:
        super().__init__(log, Stored)
        self.store = Stored.rules = MemoryRules(self.sink)
        if rules is not None:
            self.store.publish(rules)
        self.finder = self.rules_in_force()

    def rules_in_force(self) -> RulesInForce:
        def load(rules: PublishedRules | None, publishers: PublisherSnapshot | None) -> RuleEvaluator:
            found = SHIPPED if rules is None else RuleSet.parse(rules.text, "published")
            return RuleEvaluator(found, None, publishers)

        loading = Loading(load, published=True, look_seconds=3_600)
        self.finder = RulesInForce(
            RuleEvaluator.none(), self.store, loading, say=self.lines.append, warn=self.lines.append
        )
        return self.finder

    def versions(self) -> list[int]:
        """Return the evaluator version of each batch, which all of its events have."""
        named = {s.batch_no: int(b["judge_version"][0]) for s, b in self.sink.tables["ledger"]}
        for stamp, block in self.sink.tables["events"]:
            assert set(block["judge_version"].tolist()) == {named[stamp.batch_no]}
        return [named[number] for number in sorted(named)]

    def reasons(self, batch_no: int) -> list[int]:
        return [
            r for s, b in self.sink.tables["events"] if s.batch_no == batch_no for r in b["reasons"].tolist()
        ]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "log"
    with open_log(folder, MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    return folder


def run(log: Path, rules: RuleSet | None, then: RuleSet | str | None = None) -> Published:
    """Run to the end; `then` is published when batch PUBLISHED_AFTER is done, and polled at once."""
    runs = Published(log, rules)

    async def publish() -> None:
        runs.store.publish(then)  # type: ignore[arg-type]
        await runs.finder.look()

    if then is not None:
        runs.sink.faults = AfterBatch(PUBLISHED_AFTER, publish)
    asyncio.run(runs.to_the_end())
    return runs


@pytest.mark.parametrize(
    "then", [STRICTER, LONGER, rule_set(PREFETCH={})], ids=["threshold", "horizon", "fewer rules"]
)
def test_a_published_set_is_in_force_from_the_next_batch_on_as_if_it_always_had(
    log: Path, then: RuleSet
) -> None:
    """No batch is evaluated by two sets; after the change every bit is as in a run with the new set alone."""
    changed, always = run(log, RULES, then), run(log, then)
    versions = changed.versions()
    assert len(versions) > PUBLISHED_AFTER + 2
    assert len(set(versions[:PUBLISHED_AFTER])) == len(set(versions[PUBLISHED_AFTER:])) == 1
    assert versions[0] != versions[-1] == always.versions()[-1]
    for number in range(PUBLISHED_AFTER + 1, len(versions) + 1):
        assert changed.reasons(number) == always.reasons(number), number
    stored = changed.store.evaluators[versions[-1]]
    assert (stored.rules_version, stored.rules) == (then.version, then.text())


def test_an_unusable_set_is_refused_whole(log: Path) -> None:
    """The old one stays in force, in this worker and in the next; it is logged once, with an alert."""
    runs = run(log, RULES, then="mode = [")
    assert len(set(runs.versions())) == 1
    assert [(a.kind, a.rules_version) for a in runs.store.added] == [(AlertKind.REFUSED, 7)]
    assert sum("is refused" in line for line in runs.lines) == 1
    asyncio.run(runs.rules_in_force().begin())
    assert runs.finder.current.rules.version == RULES.version


def test_until_a_set_is_published_the_shipped_one_is_in_force(log: Path) -> None:
    """The worker logs it; the first published set replaces it between two batches."""
    runs = run(log, None, then=STRICTER)
    assert sum("no rules have been published" in line for line in runs.lines) == 1
    versions = runs.versions()
    assert versions[0] == run(log, None).versions()[-1]
    assert versions[-1] == run(log, STRICTER).versions()[-1]
    assert len(set(versions[:PUBLISHED_AFTER])) == len(set(versions[PUBLISHED_AFTER:])) == 1
    assert runs.store.evaluators[versions[0]].rules_version == SHIPPED.version


def test_without_a_usable_published_set_a_worker_does_not_start(log: Path) -> None:
    """An operator has chosen a set that is unusable, and no event is evaluated by rules that no operator chose."""
    runs = Published(log, None)
    runs.store.publish("mode = [")
    with pytest.raises(UsageError, match="no rule set that is published"):
        asyncio.run(runs.to_the_end())
    assert not runs.sink.tables["ledger"]


def test_a_bug_in_polling_ends_the_worker(log: Path) -> None:
    """It is raised, not swallowed: rules that silently never change would be worse."""
    runs = Published(log, RULES)
    finder = runs.rules_in_force()

    async def work() -> None:
        await finder.begin()
        ended = asyncio.Event()
        async with finder.looking(ended.set):
            runs.store.sets = None  # type: ignore[assignment] # no read of them can go well
            await ended.wait()

    finder._loading = dataclasses.replace(finder._loading, look_seconds=0.0)  # type: ignore[type-var]
    with pytest.raises(TypeError):
        asyncio.run(work())


def test_publishers_are_known_from_the_next_batch_on(log: Path) -> None:
    """While the table is empty the rules about publishers are not evaluated; then all but those in it are unknown."""
    runs = Published(log, rule_set(UNKNOWN_PUBLISHER={}, PUBLISHER_SUSPENDED={}))

    async def publish() -> None:
        runs.store.statuses, runs.store.statuses_version = {1: "active", 2: "suspended"}, 1
        await runs.finder.look()

    runs.sink.faults = AfterBatch(PUBLISHED_AFTER, publish)
    asyncio.run(runs.to_the_end())
    for stamp, block in runs.sink.tables["events"]:
        suspended = block["reasons"] >> np.uint64(Reason.PUBLISHER_SUSPENDED) & np.uint64(1) == 1
        unknown = block["reasons"] >> np.uint64(Reason.UNKNOWN_PUBLISHER) & np.uint64(1) == 1
        known = stamp.batch_no > PUBLISHED_AFTER
        assert suspended.tolist() == (known & (block["publisher_id"] == 2)).tolist()
        assert unknown.tolist() == (known & ~np.isin(block["publisher_id"], [1, 2])).tolist()


def guarded() -> RuleSet:
    """USER_VELOCITY may invalidate hardly anything."""
    rules = dict(RULES.rules)
    rules[Reason.USER_VELOCITY] = dataclasses.replace(rules[Reason.USER_VELOCITY], share_max_ppm=100)
    return dataclasses.replace(RULES, rules=rules, guardrail_events_min=1_000, guardrail_window_minutes=1440)


@pytest.fixture(scope="module")
def demoted(log: Path) -> Published:
    return run(log, guarded())


def test_a_breach_demotes_its_rule_for_the_batches_after(log: Path, demoted: Published) -> None:
    """The breaching batch is unchanged; the alert has its numbers; later hits are flagged and invalidate nothing."""
    (breach,) = demoted.store.added
    versions = demoted.versions()
    assert (breach.kind, breach.rule, breach.lane) == (AlertKind.BREACH, "USER_VELOCITY", 0)
    assert breach.invalidated_nanos * 10**6 > 100 * breach.money_nanos > 0
    assert breach.events >= 1_000
    assert len(set(versions[: breach.batch_no])) == len(set(versions[breach.batch_no :])) == 1
    assert versions[0] != versions[-1]
    assert demoted.store.evaluators[versions[-1]].turned == ("USER_VELOCITY",)
    assert (
        RuleSet.parse(demoted.store.evaluators[versions[-1]].rules, "x").rules[Reason.USER_VELOCITY].mode
        == Mode.FLAG
    )
    only = np.uint64(1 << Reason.USER_VELOCITY)
    for stamp, block in demoted.sink.tables["events"]:
        alone = block["class_code"][block["reasons"] == only]
        expected = Class.SIVT if stamp.batch_no <= breach.batch_no else Class.BILLABLE
        assert set(alone.tolist()) <= {expected, Class.DUPLICATE, Class.EXPIRED}
    undisturbed = run(log, RULES)
    assert [demoted.reasons(n) for n in range(1, len(versions))] == [
        undisturbed.reasons(n) for n in range(1, len(versions))
    ]


@pytest.mark.parametrize("fate", [CRASH_BEFORE, CRASH_AFTER])
@pytest.mark.parametrize("after_breach", [-1, 0, 1, 2])
@pytest.mark.parametrize("table", ["events", "ledger"])
def test_a_restart_changes_nothing_of_what_a_guardrail_does(
    table: str, after_breach: int, fate: str, log: Path, demoted: Published
) -> None:
    """Wherever a worker dies around a breach, the same batch demotes the rule, once, and the tables are the same."""
    (breach,) = demoted.store.added
    runs = Published(log, guarded())
    runs.sink.faults = FateOf(table, breach.batch_no + after_breach, fate, runs.sink)
    asyncio.run(runs.to_the_end())
    assert runs.crashes == 1
    assert runs.store.added == demoted.store.added
    assert_as_undisturbed(runs, demoted)


def test_repeated_crashes_change_no_guardrail(log: Path, demoted: Published) -> None:
    """This holds even when no worker survives more than a few inserts."""
    runs = Published(log, guarded())
    runs.sink.faults = Fates(["ok", "ok", "ok", "ok", "ok", CRASH_AFTER] * 6, runs.sink)
    asyncio.run(runs.to_the_end())
    assert runs.crashes >= 3
    assert runs.store.added == demoted.store.added
    assert_as_undisturbed(runs, demoted)


def test_a_resumed_rule_enforces_again(log: Path, demoted: Published) -> None:
    """It does so from the next batch on, and is measured again and demoted again."""
    (breach,) = demoted.store.added
    runs = Published(log, guarded())

    async def resume() -> None:
        row = AlertRow(AlertKind.RESUME, guarded().version, "USER_VELOCITY", author="ann", what="checked")
        await runs.store.add_alert(row)
        await runs.finder.look()

    runs.sink.faults = AfterBatch(breach.batch_no + 1, resume)
    asyncio.run(runs.to_the_end())
    versions = runs.versions()
    assert versions[breach.batch_no] == demoted.versions()[-1]
    assert versions[breach.batch_no + 1] == versions[0]
    again = [a for a in runs.store.added if a.kind == AlertKind.BREACH][1:]
    assert [a.batch_no > breach.batch_no + 1 for a in again] == [True] * len(again)


def test_the_default_set_can_be_published() -> None:
    """Its text round-trips."""
    default = load_rules("default")
    assert RuleSet.parse(default.text(), "x").version == default.version
