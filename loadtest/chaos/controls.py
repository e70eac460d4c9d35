"""A worker without one protection: `python -m adledger.loadtest.chaos.controls NAME run ...`, as `adledger run ...`.

The product has no switch for this: the protection is replaced in this process only. The controls of a chaos run start
such workers, to show that the checks would notice a missing protection.
"""

import os
import runpy
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aiokafka.errors import KafkaError

from adledger.pipeline.errors import CommitRefused, LogError, SinkError
from adledger.pipeline.lanes import lane_runner
from adledger.pipeline.lanes import start as start_module
from adledger.pipeline.lanes.compute import Computed
from adledger.pipeline.lanes.delivery import Delivery
from adledger.pipeline.lanes.doubt import Settled, Settlement
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.lane import Lane
from adledger.pipeline.lanes.lane_runner import LaneRunner
from adledger.pipeline.lanes.owned_lane import OwnedLane
from adledger.pipeline.lanes.ports import LaneLimits
from adledger.pipeline.lanes.snapshot import Start
from adledger.pipeline.lanes.state import StateKeeper
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.log.kafka_admin.broker_retry import BrokerRetry
from adledger.pipeline.stages.merge import OrderedRecords
from adledger.sinks.clickhouse import ClickHouseSink
from adledger.sinks.sink import Columns, Stamp

TRIES_MAX = 2
BROKER_AWAY_EXIT_CODE = 1
NEVER_SECONDS = 10**6


def _blind_retry() -> None:
    """Insert a batch in doubt again without looking it up."""

    async def settle(
        self: Settlement,
        intent: Intent,
        records: OrderedRecords,  # noqa: ARG001 - Settlement's signature
        leader_epochs: tuple[int, ...],  # noqa: ARG001
        compute: Callable[[], Awaitable[Computed]],
        *,
        quiet: bool = False,  # noqa: ARG001
    ) -> Settled:
        delivery = self._delivery
        return Settled(await delivery.write(await delivery.intend(intent), await compute()), None)

    _replace(Settlement, "settle", settle)


def _answers_ignored() -> None:
    """Treat an insert as done once it is sent, whatever the server answers."""
    insert, insert_texts = ClickHouseSink.insert, ClickHouseSink.insert_texts

    async def insert_anyhow(self: ClickHouseSink, table: str, columns: Columns, stamp: Stamp) -> None:
        with suppress(SinkError):
            await insert(self, table, columns, stamp)

    async def insert_texts_anyhow(self: ClickHouseSink, table: str, hashes: Columns) -> None:
        with suppress(SinkError):
            await insert_texts(self, table, hashes)

    _replace(ClickHouseSink, "insert", insert_anyhow)
    _replace(ClickHouseSink, "insert_texts", insert_texts_anyhow)


def _no_waiting_for_the_broker() -> None:
    """End the worker at the first error of a fetch or a commit."""
    # ruff: noqa: SLF001 - the protection is private
    run_once, intend = LaneRunner._run_once, Delivery.intend

    async def once(
        _: BrokerRetry,
        what: str,
        call: Callable[[], Awaitable[Any]],
        before_next: Callable[[], Awaitable[None]],  # noqa: ARG001
    ) -> Any:
        try:
            return await call()
        except KafkaError as error:
            raise LogError(f"{what}: {error!r}") from error

    async def run_once_only(self: LaneRunner, owned: OwnedLane, lane: Lane) -> None:
        try:
            await run_once(self, owned, lane)
        except LogError:
            os._exit(BROKER_AWAY_EXIT_CODE)  # a graceful end would wait for the broker, to leave the group

    async def intend_once(self: Delivery, intent: Intent) -> Intent:
        try:
            return await intend(self, intent)
        except CommitRefused:
            os._exit(BROKER_AWAY_EXIT_CODE)

    async def rejoin_never(_: Worker) -> None:
        os._exit(BROKER_AWAY_EXIT_CODE)

    _replace(BrokerRetry, "call", once)
    _replace(Worker, "_rejoin", rejoin_never)
    _replace(Delivery, "intend", intend_once)
    _replace(LaneRunner, "_run_once", run_once_only)


def _no_rejoin() -> None:
    """Stay out of the group after a commit without an answer, instead of rejoining as a new member."""

    async def rejoin(self: Worker) -> None:
        """Do nothing."""

    _replace(Worker, "_rejoin", rejoin)


def _no_rebuild() -> None:
    """Start with an empty window."""

    async def rebuild(self: StateKeeper, start: Start) -> None:
        """Do nothing."""

    _replace(StateKeeper, "rebuild", rebuild)


def _no_patience() -> None:
    """Give up on ClickHouse for good after a few attempts."""
    limits = start_module.limits

    def few(settings: Any, **how: Any) -> LaneLimits:
        found = limits(settings, **how)
        return replace(found, retry=replace(found.retry, attempts_max=TRIES_MAX))

    _replace(start_module, "limits", few)
    _replace(lane_runner, "LANE_RETRY_SECONDS", NEVER_SECONDS)


WITHOUT: Mapping[str, Callable[[], None]] = {
    "lookup-before-retry": _blind_retry,
    "server-answers": _answers_ignored,
    "waiting-for-the-broker": _no_waiting_for_the_broker,
    "rejoining": _no_rejoin,
    "rebuilding": _no_rebuild,
    "retrying": _no_patience,
}
"""Name of the protection -> the function that removes it from this process."""


def _replace(owner: Any, name: str, changed: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name}: the control must follow the product"
    setattr(owner, name, changed)


if __name__ == "__main__":
    WITHOUT[sys.argv[1]]()
    del sys.argv[1]
    runpy.run_module("adledger", run_name="__main__", alter_sys=True)
