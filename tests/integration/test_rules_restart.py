"""A lane with rules that dies and comes back evaluates bit by bit as one that never stopped."""

import asyncio
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.windows import WINDOWED
from adledger.schemas.classes import Class, Reason
from adledger.sinks.blocks import Block
from tests.integration.test_doubt import (
    CRASH_AFTER,
    CRASH_BEFORE,
    OK,
    UNANSWERED,
    FateOf,
    Fates,
    Runs,
    assert_as_undisturbed,
)
from tests.support.rule_sets import rule_set

pytestmark = pytest.mark.usefixtures("without_pauses")

ATTACKS = ("double_click", "click_flood", "injected_click", "carrier_nat", "datacentre_bot")
MODEL = TrafficModel(
    seed=3, events=3_000, partitions=1, duration_hours=5, users=300, user_head_users=10, click_share=0.2,
    scenarios=tuple(Scenario(kind=kind, actors=4, events_per_actor=40) for kind in ATTACKS),
)  # fmt: skip
RULES = rule_set(
    PREFETCH={}, TEST_TRAFFIC={}, INVALID_PLACEMENT={},
    CLICK_NO_IMPRESSION={"horizon_minutes": 1}, CLICK_TOO_FAST={}, CLICK_TOO_LATE={"gap_max_minutes": 1}, DOUBLE_CLICK={},
    REPEAT_CLICK={"clicks_max": 1}, CLICK_MISMATCH={},
    USER_VELOCITY={"window_seconds": 600, "events_max": 8, "clicks_max": 2}, USER_MANY_IPS={"networks_max": 1},
    PERIODIC={"tolerance_percent": 50},
)  # fmt: skip
"""Limits so low that every rule has hits, and windows far longer than a batch."""


class Evaluated(Runs):
    """Workers whose lanes evaluate by the rules."""

    evaluator = RuleEvaluator(RULES)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules") / "log"
    with open_log(folder, MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    return folder


@pytest.fixture(scope="module")
def undisturbed(log: Path) -> Runs:
    runs = Evaluated(log)
    asyncio.run(runs.to_the_end())
    return runs


def test_every_windowed_rule_has_hits(undisturbed: Runs) -> None:
    """Otherwise the tests below would mean little; both classes of enforced rules occur, and the version is theirs."""
    blocks = [block for _, block in undisturbed.sink.tables["events"]]
    reasons = np.bitwise_or.reduce(np.concatenate([b["reasons"] for b in blocks]))
    rare = {Reason.CLICK_MISMATCH, Reason.PERIODIC}
    assert {r for r in WINDOWED if int(reasons) >> r & 1} >= set(WINDOWED) - rare
    assert Class.SIVT in np.concatenate([b["class_code"] for b in blocks])
    assert {int(v) for b in blocks for v in b["judge_version"]} == {Evaluated.evaluator.version}


@pytest.mark.parametrize("fate", [CRASH_BEFORE, CRASH_AFTER, UNANSWERED])
@pytest.mark.parametrize("table", ["events", "ledger"])
@pytest.mark.parametrize("batch_no", [1, 3, 6])
def test_a_restart_changes_no_verdict(
    batch_no: int, table: str, fate: str, log: Path, undisturbed: Runs
) -> None:
    """Wherever a worker dies, the next one's windows, rebuilt from `events`, lead to the same rows in every table."""
    runs = Evaluated(log)
    runs.sink.faults = FateOf(table, batch_no, fate, runs.sink)
    asyncio.run(runs.to_the_end())
    assert runs.crashes == fate.startswith("crash")
    assert_as_undisturbed(runs, undisturbed)


def test_repeated_crashes_change_no_verdict(log: Path, undisturbed: Runs) -> None:
    """With a crash after every few inserts, no window is ever older than some batches."""
    runs = Evaluated(log)
    runs.sink.faults = Fates([OK, OK, OK, OK, OK, CRASH_AFTER, OK, OK, CRASH_BEFORE] * 4, runs.sink)
    asyncio.run(runs.to_the_end())
    assert runs.crashes >= 3
    assert_as_undisturbed(runs, undisturbed)


def test_another_rule_set_is_another_version(log: Path, undisturbed: Runs) -> None:
    """Flagged instead of enforced, the hits are the same, no event changes its class, and the evaluator version differs."""
    flagged = RULES.flagged(list(RULES.rules))

    class Flagged(Runs):
        evaluator = RuleEvaluator(flagged)

    runs = Flagged(log)
    asyncio.run(runs.to_the_end())
    assert dataclasses.replace(flagged, author="x").version == flagged.version != RULES.version
    for (_, one), (_, other) in zip(
        undisturbed.sink.tables["events"], runs.sink.tables["events"], strict=True
    ):
        assert one["reasons"].tolist() == other["reasons"].tolist()
        assert not np.isin(other["class_code"], [Class.GIVT, Class.SIVT]).any()


@pytest.mark.parametrize("table", ["events", "rollup_minute", "ledger"])
@pytest.mark.parametrize("fate", [CRASH_BEFORE, CRASH_AFTER])
def test_a_pending_batch_meets_new_rules(table: str, fate: str, log: Path, undisturbed: Runs) -> None:
    """A worker dies in mid-batch and the next one evaluates by other rules; the batch's tables agree.

    Where its events were stored already, all of its rows follow the former rules, otherwise the new ones.
    """
    batch_no, flagged = 3, RuleEvaluator(RULES.flagged(list(RULES.rules)))
    runs = Evaluated(log)
    runs.sink.faults = FateOf(table, batch_no, fate, runs.sink)

    def by_turns() -> RulesInForce:
        return RulesInForce(Evaluated.evaluator if not runs.crashes else flagged)

    runs.rules_in_force = by_turns  # type: ignore[method-assign]
    asyncio.run(runs.to_the_end())
    assert runs.crashes == 1
    as_before = batch_no if (table, fate) != ("events", CRASH_BEFORE) else batch_no - 1
    for name in ("events", "ledger"):
        for stamp, block in runs.sink.tables[name]:
            wanted = Evaluated.evaluator if stamp.batch_no <= as_before else flagged
            assert {int(v) for v in block["judge_version"]} == {wanted.version}
    for stamp, rollup in runs.sink.tables["rollup_minute"]:
        (events,) = [block for at, block in runs.sink.tables["events"] if at.batch_no == stamp.batch_no]
        assert of_classes(rollup, "records") == of_classes(events, None)
        assert of_classes(rollup, "money_nanos") == of_classes(events, "money_nanos")
    enforced = {Class.GIVT, Class.SIVT}
    assert enforced & {
        c
        for stamp, b in runs.sink.tables["rollup_minute"]
        if stamp.batch_no <= as_before
        for c in b["class_code"]
    }


def of_classes(block: Block, column: str | None) -> dict[int, int]:
    """Return class -> the sum of a column, or the number of rows."""
    summed = Counter[int]()
    values = block[column] if column else np.ones(len(block["class_code"]), "i8")
    for code, value in zip(block["class_code"], values, strict=True):
        summed[int(code)] += int(value)
    return {code: value for code, value in summed.items() if value}
