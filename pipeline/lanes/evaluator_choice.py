"""Which evaluator a lane's next batch gets: the one in force, for its log day, with the rules that its guardrail demoted.

A change takes effect between two batches: the evaluator is stored first, then used, and the batch's intent names it.
"""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import TypeVar

from adledger.pipeline.lanes.compute import Computed, LaneState
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.rules.compiled import LaneEvaluator
from adledger.pipeline.rules.guardrail import Guardrail, Slices, Standing, tally
from adledger.pipeline.stages.merge import DAY_MS
from adledger.sinks.sink import LedgerEntry

T = TypeVar("T")
EPOCH = dt.date(1970, 1, 1)

Retry = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Repeats an idempotent call until ClickHouse answers."""


class EvaluatorChoice:
    """One lane's choice of evaluator. Not safe for concurrent tasks."""

    def __init__(self, lane: int, rules_in_force: RulesInForce, state: LaneState, retry: Retry) -> None:
        self._lane, self._rules_in_force, self._state, self._retry = (
            lane,
            rules_in_force,
            state,
            retry,
        )
        self._made_for: tuple[int, int, Standing] | None = None
        self._guardrail = Guardrail(rules_in_force.current.rules)
        self._guarded = rules_in_force.current.rules.version

    async def begin(self, batch_no: int) -> None:
        """Take up the guardrail where the batches before `batch_no` left it.

        The last of them is measured again: its worker may have died before it stored the breaches.
        """
        rules = self._rules_in_force.current.rules
        self._guardrail, self._guarded = Guardrail(rules), rules.version
        if not self._guardrail.watches:
            return

        last: list[Slices] = []

        async def read() -> None:
            batches = await self._rules_in_force.tallies(self._lane, batch_no)
            last[:] = [batches.pop(batch_no - 1)] if batch_no - 1 in batches else []
            self._guardrail = Guardrail(rules, batches.values())

        await self._retry(read)
        for batch in last:
            await self._see(batch_no - 1, batch)

    async def before(self, clock_after: int, rebuild: Callable[[], Awaitable[None]]) -> None:
        """Give the state the evaluator for a batch that ends at a watermark (ms); called between two batches.

        `rebuild` rebuilds the windows of the state's evaluator, if a horizon has changed.
        """
        current, standing = self._rules_in_force.current, self._rules_in_force.standing(self._lane)
        wanted_for = (current.version, clock_after // DAY_MS, standing)
        if wanted_for == self._made_for:
            return
        day = EPOCH + dt.timedelta(days=clock_after // DAY_MS)
        wanted = current.for_batch(day, standing.demoted)
        await self._retry(lambda: self._rules_in_force.store(wanted))
        if wanted.version != self._state.evaluator.compiled.version:
            changed = self._state.evaluator.changed(wanted)
            self._state.evaluator = changed or LaneEvaluator(wanted, secret=self._state.evaluator.secret)
            if changed is None:
                await rebuild()
        if self._guarded != current.rules.version:
            self._guardrail, self._guarded = Guardrail(current.rules), current.rules.version
        self._made_for = wanted_for

    async def after(self, entry: LedgerEntry, computed: Computed) -> None:
        """Pass a batch that is in the ledger to the guardrail."""
        if not self._guardrail.watches:
            return
        events, enforced = computed.events, self._state.evaluator.compiled.enforced
        classes, reasons, money = events["class_code"], events["reasons"], events["money_nanos"]
        batch = tally(
            classes,
            reasons,
            money,
            events["currency_code"],
            events["lane_clock"],
            enforced,
            entry.clock_after,
        )
        await self._see(entry.batch_no, batch)

    async def _see(self, batch_no: int, batch: Slices) -> None:
        """Measure a batch, and report the result."""
        breaches = self._guardrail.add(batch, self._rules_in_force.standing(self._lane))
        if self._guarded != self._rules_in_force.current.rules.version:
            return  # the alerts are of another set; the next batch has another guardrail
        if breaches:
            await self._retry(
                lambda: self._rules_in_force.store_breaches(self._guarded, self._lane, batch_no, breaches)
            )
