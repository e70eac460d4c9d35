"""Membership of the group: aiokafka's rebalances become lanes assigned and revoked, each told once and in order.

The group is eager: before every rebalance all lanes are revoked, after it all are assigned again, each in the name
of the generation and member id that hold at that moment. When the group can't go on as it is (fenced, refused,
nobody can lead), the lanes are revoked, what is wrong is said, and after a pause a new member joins.
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
"""For leaving at the end; a coordinator that takes longer learns from the session's end."""

_CAUSES: Mapping[type, str] = {
    GroupAuthorizationFailedError: f"this user may not join it; {RIGHTS_REMEDY}",
    InconsistentGroupProtocolError: "its members share lanes out in another way: another program, or another release "
    "of this one, is in it; stop that one, or set group to a name of its own",
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
        self._told: set[int] = set()
        self._rebalances = 0
        self._failures = 0
        self._refusal = False  # lanes could not be given out, and it was said why
        self._turn = asyncio.Lock()
        self._leaving = asyncio.Event()
        self._replacing: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._old_ids: set[str] = set()  # of members that we were, which the group may still have
        self._removing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def join(self) -> None:
        """Begin to join; the listener hears of lanes from a task of its own, never before the caller waits."""
        self._member = Member(
            self._client, self._group, self._topics, self._assignor, self._options,
            assigned=self._on_assigned, revoked=self._on_revoked, failed=self._on_failed,
        )  # fmt: skip

    async def leave(self) -> None:
        """Revoke all lanes, then leave. Nobody joins again after it."""
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
        """Join as a new member, then take the old one out: a group that was empty in between waits for more to come.

        (The brokers' group.initial.rebalance.delay.ms, 3 s by default.)
        """
        await self._give_up()
        if self._leaving.is_set():
            return
        self.join()
        assert self._member is not None, "it joins just now"
        self._removing.cancel()
        self._removing = asyncio.create_task(self._remove_old(self._member))

    async def _replace_after(self, pause_seconds: float) -> None:
        """Leave a group that can't go on as it is, and join again after a pause."""
        await self._give_up()
        await asyncio.gather(*(self._remove(old, pause_seconds) for old in self._old_ids))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_seconds):
                await self._leaving.wait()
        if not self._leaving.is_set():
            self.join()

    async def _remove_old(self, new: Member) -> None:
        """Take old members out until the new one has its lanes.

        Once may not do: a coordinator that moves in the middle of a rebalance forgets who left in it.
        """
        await new.entered()
        while self._old_ids:
            await asyncio.gather(
                *(leave_group(self._client, self._group, old, self._session_seconds) for old in self._old_ids)
            )
            await asyncio.sleep(REMOVE_AGAIN_SECONDS)

    async def _remove(self, old: str, seconds_max: float) -> None:
        """Take a member that we were out of the group. Where that fails its session ends it."""
        await leave_group(self._client, self._group, old, seconds_max)
        self._old_ids.discard(old)

    def _start_replacing(self, replacing: Coroutine[Any, Any, None]) -> None:
        task = self._replacing = asyncio.create_task(replacing)

        def done(_: object) -> None:
            if self._replacing is task:
                self._replacing = None

        task.add_done_callback(done)

    async def _give_up(self) -> None:
        member, self._member = self._member, None  # from here on no assignment is told
        await self._on_revoked([])
        if member is not None:
            old = "" if member.stays else member.member_id
            await member.close()
            self._old_ids |= {old} - {""}
        await asyncio.gather(*self._telling)

    async def _on_assigned(self, lanes: list[int]) -> None:
        member = self._member
        if member is None:
            return  # it is leaving
        self._failures = 0
        self._removing.cancel()
        self._old_ids.clear()  # a rebalance that is over keeps nobody who did not join in it
        self._rebalances += 1
        generation, member_id = member.generation, member.member_id
        telling = asyncio.create_task(
            self._tell(self._rebalances, [Assignment(lane, generation, member_id) for lane in lanes])
        )
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, rebalance: int, assignments: list[Assignment]) -> None:
        async with self._turn:
            if rebalance == self._rebalances:  # also of no lanes: the worker is a member now, and ready
                self._told = {assignment.lane for assignment in assignments}
                await self._listener.lanes_assigned(assignments)

    async def _on_revoked(self, _: list[int]) -> None:
        """Revoke what was told: aiokafka's own list may hold lanes whose assignment nobody was told of yet."""
        self._rebalances += 1
        async with self._turn:
            lanes, self._told = sorted(self._told), set()
            if lanes:
                await self._listener.lanes_revoked(lanes)

    def _on_failed(self, error: BaseException) -> None:
        self._failures += 1
        pause = self._retry.policy.pause_seconds(self._failures)
        untold = "its lanes can't be assigned, as logged before" if self._refusal else repr(error)
        self._refusal = False
        cause = next((text for kind, text in _CAUSES.items() if isinstance(error, kind)), untold)
        self._retry.say(f"group {self._group}: {cause}. Joining again in {pause:.1f} s")
        if self._replacing is None:
            self._start_replacing(self._replace_after(pause))

    def _refused(self, error: LogError) -> None:
        self._refusal = True
        self._retry.say(" ".join(str(error).split()))
