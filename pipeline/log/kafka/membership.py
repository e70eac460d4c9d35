"""Membership of the group: turns aiokafka's rebalances into lanes assigned and revoked, each reported once, in order.

The group is eager: before every rebalance all lanes are revoked, after it all are assigned again, each with the
generation and member id of that moment. When membership fails (fenced, refused, lanes can't be assigned), the lanes are
revoked, the cause is logged, and after a pause a new member joins.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
)

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka.aiokafka_private import Member, leave_group
from adledger.pipeline.log.kafka.assignor import LaneAssignor
from adledger.pipeline.log.kafka_admin.broker_retry import BrokerRetry
from adledger.pipeline.log.kafka_admin.failures import RIGHTS_REMEDY
from adledger.pipeline.log.kafka_admin.properties import SESSION_DEFAULT_MS
from adledger.pipeline.log.kafka_admin.worker_info import NO_INFO, WorkerInfo
from adledger.pipeline.log.source import Assignment, GroupListener

REMOVE_AGAIN_SECONDS = 1.0
LEAVE_SECONDS_MAX = 3.0
"""Time to leave at the end; with a coordinator that takes longer, the session expires."""

_CAUSES: Mapping[type, str] = {
    GroupAuthorizationFailedError: f"this user may not join it; {RIGHTS_REMEDY}",
    InconsistentGroupProtocolError: "its members use another assignor: another program, or another release "
    "of this one, is in it; stop that one, or set group to another name",
    InvalidSessionTimeoutError: "the brokers refuse session.timeout.ms: set it between their "
    "group.min.session.timeout.ms and group.max.session.timeout.ms",
}


class Membership:
    """One worker's place in a group: `join`, `leave`, and a new member id by `rejoin`."""

    def __init__(
        self,
        client: AIOKafkaClient,
        group: str,
        topics: Collection[str],
        options: Mapping[str, Any],
        retry: BrokerRetry,
        listener: GroupListener,
        info: WorkerInfo = NO_INFO,
    ) -> None:
        """`options` are times and `group_instance_id`, as aiokafka's GroupCoordinator names them."""
        self._client, self._group, self._topics, self._options = client, group, topics, options
        self._retry, self._listener = retry, listener
        self._session_seconds = options.get("session_timeout_ms", SESSION_DEFAULT_MS) / 1000
        self._assignor = LaneAssignor(options.get("group_instance_id"), refused=self._refused, info=info)
        self._member: Member | None = None
        self._reported: set[int] = set()
        self._rebalances = 0
        self._failures = 0
        self._refusal = False  # lanes could not be assigned, and the cause is logged
        self._turn = asyncio.Lock()
        self._leaving = asyncio.Event()
        self._replacing: asyncio.Task[None] | None = None
        self._reporting: set[asyncio.Task[None]] = set()
        self._old_ids: set[str] = set()  # our former member ids that the group may still have
        self._removing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def join(self) -> None:
        """Begin to join; a separate task calls the listener, never before the caller awaits."""
        self._member = Member(
            self._client, self._group, self._topics, self._assignor, self._options,
            assigned=self._on_assigned, revoked=self._on_revoked, failed=self._on_failed,
        )  # fmt: skip

    async def leave(self) -> None:
        """Revoke all lanes, then leave for good."""
        self._leaving.set()
        if self._replacing is not None:
            await self._replacing
        await self._give_up()
        self._removing.cancel()
        await asyncio.gather(*(self._remove(old, LEAVE_SECONDS_MAX) for old in self._old_ids))

    async def rejoin(self) -> None:
        """Revoke all lanes, and join with a new member id. Calls during a rejoin wait for that one."""
        if self._replacing is None:
            self._start_replacing(self._replace())
        assert self._replacing is not None, "started just now"
        await asyncio.shield(self._replacing)

    async def _replace(self) -> None:
        """Join as a new member, then remove the old one: in the other order the group could be empty in between.

        An empty group waits for more members (the brokers' group.initial.rebalance.delay.ms, 3 s by default).
        """
        await self._give_up()
        if self._leaving.is_set():
            return
        self.join()
        assert self._member is not None, "it joins just now"
        self._removing.cancel()
        self._removing = asyncio.create_task(self._remove_old(self._member))

    async def _replace_after(self, pause_seconds: float) -> None:
        """Leave the group after a failure, and join again after a pause."""
        await self._give_up()
        await asyncio.gather(*(self._remove(old, pause_seconds) for old in self._old_ids))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_seconds):
                await self._leaving.wait()
        if not self._leaving.is_set():
            self.join()

    async def _remove_old(self, new: Member) -> None:
        """Remove old members until the new one has its lanes.

        Once may not be enough: a coordinator that moves during a rebalance forgets which members left in it.
        """
        await new.entered()
        while self._old_ids:
            await asyncio.gather(
                *(leave_group(self._client, self._group, old, self._session_seconds) for old in self._old_ids)
            )
            await asyncio.sleep(REMOVE_AGAIN_SECONDS)

    async def _remove(self, old: str, seconds_max: float) -> None:
        """Remove one of our former members from the group. Where that fails, its session expires."""
        await leave_group(self._client, self._group, old, seconds_max)
        self._old_ids.discard(old)

    def _start_replacing(self, replacing: Coroutine[Any, Any, None]) -> None:
        task = self._replacing = asyncio.create_task(replacing)

        def done(_: object) -> None:
            if self._replacing is task:
                self._replacing = None

        task.add_done_callback(done)

    async def _give_up(self) -> None:
        member, self._member = self._member, None  # from here on no assignment is reported
        await self._on_revoked([])
        if member is not None:
            old = "" if member.stays else member.member_id
            await member.close()
            self._old_ids |= {old} - {""}
        await asyncio.gather(*self._reporting)

    async def _on_assigned(self, lanes: list[int]) -> None:
        member = self._member
        if member is None:
            return  # it is leaving
        self._failures = 0
        self._removing.cancel()
        self._old_ids.clear()  # a completed rebalance drops every member that did not join in it
        self._rebalances += 1
        generation, member_id = member.generation, member.member_id
        reporting = asyncio.create_task(
            self._report(self._rebalances, [Assignment(lane, generation, member_id) for lane in lanes])
        )
        self._reporting.add(reporting)
        reporting.add_done_callback(self._reporting.discard)

    async def _report(self, rebalance: int, assignments: list[Assignment]) -> None:
        async with self._turn:
            if rebalance == self._rebalances:  # also without lanes: the worker is a member now, and ready
                self._reported = {assignment.lane for assignment in assignments}
                await self._listener.lanes_assigned(assignments)

    async def _on_revoked(self, _: list[int]) -> None:
        """Revoke the reported lanes: aiokafka's list may have lanes whose assignment was not reported yet."""
        self._rebalances += 1
        async with self._turn:
            lanes, self._reported = sorted(self._reported), set()
            if lanes:
                await self._listener.lanes_revoked(lanes)

    def _on_failed(self, error: BaseException) -> None:
        self._failures += 1
        pause = self._retry.policy.pause_seconds(self._failures)
        default = "its lanes can't be assigned, as logged before" if self._refusal else repr(error)
        self._refusal = False
        cause = next((text for kind, text in _CAUSES.items() if isinstance(error, kind)), default)
        self._retry.say(f"group {self._group}: {cause}. Joining again in {pause:.1f} s")
        if self._replacing is None:
            self._start_replacing(self._replace_after(pause))

    def _refused(self, error: LogError) -> None:
        self._refusal = True
        self._retry.say(" ".join(str(error).split()))
