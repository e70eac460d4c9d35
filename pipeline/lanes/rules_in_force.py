"""The rule evaluator of a worker's lanes: loaded, stored before its first use, and polled for changes every few seconds.

What is in force is a function of the tables `rules` (the newest set; the shipped one while there is none), `publishers`
and `alerts`, and of today's lists. A set that can't be used is refused whole, with an alert, and the last one stays in force.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from adledger import __version__
from adledger.pipeline.errors import AdledgerError, SinkError, SinkUnavailable, UsageError
from adledger.pipeline.lists.publishers import PublisherSnapshot, PublisherStatus
from adledger.pipeline.retry import Attempt, RetryPolicy
from adledger.pipeline.rules.compiled import RULES_LOGIC_VERSION, RuleEvaluator
from adledger.pipeline.rules.guardrail import Breach, Slices, Standing, tally_of_sums
from adledger.pipeline.rules.loader import today
from adledger.schemas.classes import Reason
from adledger.sinks.rules import NO_RULE_STORE, AlertKind, AlertRow, EvaluatorRow, PublishedRules, RuleStore

Load = Callable[[PublishedRules | None, PublisherSnapshot | None], RuleEvaluator]
"""Makes the evaluator of a published set (None: what the settings name without one) and of publishers. Raises UsageError."""

BEGIN_RETRY = RetryPolicy(attempts_max=20, backoff_ms_max=5_000)

STATUSES = {status.name.lower(): status for status in PublisherStatus if status}


@dataclass(frozen=True, slots=True)
class Loading:
    """How evaluators are loaded. `published`: from the table `rules`. `look_seconds`: how often the tables are polled."""

    load: Load
    published: bool
    look_seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a poll found; the evaluator is loaded again if it differs from what was found before."""

    rules: Sequence[PublishedRules] = ()  # the newest first
    publishers: int = 0
    day: dt.date = field(default_factory=today)


class RulesInForce:
    """The evaluator for the next batches of a worker's lanes. Belongs to one event loop."""

    def __init__(
        self,
        evaluator: RuleEvaluator,
        store: RuleStore = NO_RULE_STORE,
        loading: Loading | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
        alerted: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start with `evaluator`, in force until `begin` finds another (never, without `loading`). `alerted` is called for each alert."""
        self.current = evaluator
        self._store, self._loading = store, loading
        self._say, self._warn, self._alerted = say, warn, alerted
        self._alerts: Sequence[AlertRow] = ()
        self._alerts_lock, self._store_lock = asyncio.Lock(), asyncio.Lock()
        self._stored: set[int] = set()
        self._refused: set[int] = set()  # when they were published
        self._found: Found | None = None
        self._publishers: PublisherSnapshot | None = None
        self._unreadable = ""  # what was said last

    async def begin(self) -> None:
        """Load the rules in force. Raises UsageError if none can be used, SinkError.

        A ClickHouse that goes away just now is waited for, as it is before and after: `BEGIN_RETRY`, each try said.
        """

        def failed(error: SinkUnavailable, attempt: Attempt) -> None:
            if error.refused:
                raise error
            self._say(f"{error.message}; {attempt}")

        await BEGIN_RETRY.call(self._begin, SinkUnavailable, failed)

    async def _begin(self) -> None:
        if self._loading is not None:
            await self._take(await self._look(self._loading))
        await self._read_alerts()

    @asynccontextmanager
    async def looking(self, failed: Callable[[], None]) -> AsyncIterator[None]:
        """Poll for published rules while the block runs. A bug calls `failed`, and is raised when the block ends."""
        task = asyncio.create_task(self._keep_looking())
        task.add_done_callback(lambda done: failed() if not done.cancelled() and done.exception() else None)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _keep_looking(self) -> None:
        while self._loading is not None:
            await asyncio.sleep(self._loading.look_seconds)
            await self.look()

    async def look(self) -> None:
        """Poll once; what can't be read or used is reported, and the rules in force stay."""
        if self._loading is None:
            return
        try:
            found = await self._look(self._loading)
            if found != self._found:
                await self._take(found)
            await self._read_alerts()
            self._unreadable = ""
        except (UsageError, SinkError) as error:
            if self._unreadable != error.message:
                self._warn(f"the rules in force stay: {error}")
            self._unreadable = error.message

    def standing(self, lane: int) -> Standing:
        """Return a lane's demotions under the set in force, from the alerts."""
        return standing(self._alerts, lane)

    async def store(self, evaluator: RuleEvaluator) -> None:
        """Store an evaluator durably, under its version. Raises SinkError."""
        if evaluator.version in self._stored:
            return
        async with self._store_lock:  # lanes switch together: one row is enough
            if evaluator.version not in self._stored:
                await self._store.store_evaluator(evaluator_row(evaluator))
                self._stored.add(evaluator.version)

    async def store_breaches(
        self, rules_version: int, lane: int, batch_no: int, breaches: Sequence[Breach]
    ) -> None:
        """Store the breaches of a lane's batch under a set as alerts. Raises SinkError."""
        for b in breaches:
            row = AlertRow(
                AlertKind.BREACH, rules_version, b.reason.name, lane, batch_no, b.clock, b.currency_code,
                b.events, b.invalidated_nanos, b.money_nanos, b.share_min_ppm, b.share_max_ppm,
            )  # fmt: skip
            async with self._alerts_lock:
                await self._store.add_alert(row)
                if rules_version == self.current.rules.version:
                    self._alerts = (*self._alerts, row)
            self._alerted(row.kind)
            self._warn(
                f"lane {lane}, batch {batch_no}: {b.reason.name} invalidated {b.invalidated_nanos / b.money_nanos:.1%} of "
                f"the money, its bounds are {b.share_min_ppm / 1e6:.1%} to {b.share_max_ppm / 1e6:.1%}: it is flagged "
                f"here from now on; look (adledger rules status), then: adledger rules resume {b.reason.name}"
            )

    async def tallies(self, lane: int, before_batch_no: int) -> dict[int, Slices]:
        """Return batch number -> its share of the guardrail, in order, for a lane's last batches under the set in force.

        They go back by the guardrail's window from where the last one begins.
        """
        rules = self.current.rules
        window_ms = rules.guardrail_window_minutes * 60_000
        evaluated = await self._store.evaluated(lane, window_ms, before_batch_no, rules.version)
        return {b.batch_no: tally_of_sums(b.sums, b.enforced, b.clock_after) for b in evaluated}

    async def _look(self, loading: Loading) -> Found:
        rules = await self._store.published() if loading.published else ()
        return Found(rules, await self._store.publishers_version())

    async def _take(self, found: Found) -> None:
        """Load the newest usable set of those found."""
        assert self._loading is not None, "else nothing is looked for"
        if self._found is None or found.publishers != self._found.publishers:
            self._publishers = snapshot(await self._store.publishers())
        evaluator = None
        if not found.rules:
            evaluator = await asyncio.to_thread(self._loading.load, None, self._publishers)
            if self._loading.published and self._found is None:
                self._say("no rules have been published yet: the shipped set is in force")
        for rules in found.rules:
            try:
                evaluator = await asyncio.to_thread(self._loading.load, rules, self._publishers)
                break
            except UsageError as error:
                await self._refuse(rules, error)
        if evaluator is None:
            raise UsageError(
                "no rule set that is published can be used",
                remedy="adledger rules publish FILE --author A --reason R, or set rules = none",
            )
        async with self._alerts_lock:
            self._alerts = await self._store.alerts(evaluator.rules.version)
            if self._found is not None and evaluator.version != self.current.version:
                self._say(f"the rules are {evaluator.rules.version:016x} from each lane's next batch on")
            self.current, self._found = evaluator, found

    async def _refuse(self, rules: PublishedRules, error: AdledgerError) -> None:
        if rules.published_at in self._refused:
            return
        self._refused.add(rules.published_at)
        self._warn(f"the published rule set {rules.version:016x} of {rules.author} is refused: {error}")
        what = f"set of {rules.author}: {error.message}"
        await self._store.add_alert(AlertRow(AlertKind.REFUSED, rules.version, what=what))
        self._alerted(AlertKind.REFUSED)

    async def _read_alerts(self) -> None:
        async with self._alerts_lock:  # an alert that is being stored must not be lost
            self._alerts = await self._store.alerts(self.current.rules.version)


def standing(alerts: Sequence[AlertRow], lane: int) -> Standing:
    """Return a lane's demotions after alerts, in order: a breach demotes a rule, a resumption lets it enforce again."""
    demoted: set[Reason] = set()
    breached: dict[Reason, int] = {}
    for alert in alerts:
        if alert.rule not in Reason.__members__:
            continue  # another release's
        rule = Reason[alert.rule]
        if alert.kind == AlertKind.BREACH and alert.lane == lane:
            demoted.add(rule)
            breached[rule] = alert.clock
        elif alert.kind == AlertKind.RESUME:
            demoted.discard(rule)
    return Standing(frozenset(demoted), breached)


def snapshot(rows: Sequence[tuple[int, str]]) -> PublisherSnapshot:
    """Return the snapshot of (publisher id, status). Raises SinkError for a status that this release does not know."""
    if unknown := {status for _, status in rows} - STATUSES.keys():
        raise SinkError(
            f"publishers have the status {', '.join(sorted(unknown))}, which this release does not know",
            remedy=f"known are {', '.join(STATUSES)}: adledger publishers import",
        )
    return PublisherSnapshot({publisher: STATUSES[status] for publisher, status in rows})


def evaluator_row(evaluator: RuleEvaluator) -> EvaluatorRow:
    """Return an evaluator's row in the table `judges`."""
    lists = evaluator.lists
    facts = lists.facts if lists is not None else ()
    usable = (
        tuple(not lists.why_not((f.name,), evaluator.log_day) for f in facts) if lists is not None else ()
    )
    why: Mapping[str, str] = {reason.name: text for reason, text in evaluator.not_evaluated.items()}
    return EvaluatorRow(
        version=evaluator.version, rules_version=evaluator.rules.version,
        turned=tuple(sorted(reason.name for reason in evaluator.demoted)), rules=evaluator.effective.text(),
        enforced=evaluator.enforced, not_evaluated=why,
        list_names=tuple(f.name for f in facts), list_versions=tuple(f.version for f in facts),
        list_contents=tuple(f.content for f in facts), list_usable=usable,
        lists_version=lists.version if lists is not None else "",
        publishers_version=evaluator.publishers.version if evaluator.publishers is not None else "",
        logic_version=RULES_LOGIC_VERSION, release=__version__,
    )  # fmt: skip
