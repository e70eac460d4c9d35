"""Compiles the kernels before work begins, so that compilation never counts against a batch's deadline or a measurement."""

import numpy as np

from adledger.pipeline.lanes.compute import LaneState, compute, ledger_row, rollup_rows
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lists import warm as lists
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.rules.compiled import LaneEvaluator, RuleEvaluator
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.stages.decode import DecodeContext
from adledger.pipeline.stages.dedupe import DedupeState, SeenHashes
from adledger.pipeline.stages.merge import DAY_MS
from adledger.schemas.periods import CLOSE_DELAY_MINUTES, CloseDelays
from adledger.schemas.wire import EVENT_TIME_MS_MIN, currency_code

_EVENT = (
    b'{"event_type":"impression","event_id":"warm","event_time":%d,"publisher_id":1,"site_id":1,"campaign_id":1,'
    b'"creative_id":1,"advertiser_id":1,"user_id":"u","ip":"192.0.2.1","user_agent":"","page_url":"","price_micros":1}'
    % EVENT_TIME_MS_MIN
)


def compile_kernels(rules: RuleSet | None = None) -> None:
    """Run every stage once on a dummy record, which compiles the kernels or loads them from the cache.

    None: no rules are run, so theirs are not compiled.
    """
    if rules is not None and rules.bits(Mode.ENFORCE, Mode.FLAG):
        lists.compile_kernels()
    refs = RecordRefs.of([_EVENT, b""], [b"u", None], log_times=[EVENT_TIME_MS_MIN] * 2)
    evaluator = LaneEvaluator(RuleEvaluator(rules or RuleSet.none()))
    state = LaneState(DedupeState(DAY_MS), evaluator, SeenHashes.of(16), SeenHashes.of(16))
    context = DecodeContext(0, 1, (1,), currency_code("USD"))
    computed = compute(
        refs, np.full(2, EVENT_TIME_MS_MIN), state, context, DAY_MS, CloseDelays.same(CLOSE_DELAY_MINUTES)
    )
    assert computed.event_rows == computed.dead_rows == 1, "the record that warms up is an event"
    intent = Intent("", 0, 1, (), 0, 0, 0, 0, EVENT_TIME_MS_MIN, 1, 1, computed.judge_version, 0)
    ledger_row(
        intent, computed.events, computed.dead_letters, rollup_rows(computed.events, EVENT_TIME_MS_MIN)
    )
