"""Kafka as a lane's source: membership, commits and reading over one client."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from adledger.pipeline.addresses import KafkaAddress
from adledger.pipeline.errors import CommitFenced, LogError, UsageError
from adledger.pipeline.log.kafka.batches import LogTime
from adledger.pipeline.log.kafka.commit_outcome import METADATA_BYTES_MAX
from adledger.pipeline.log.kafka.commits import GroupCommits
from adledger.pipeline.log.kafka.membership import Membership
from adledger.pipeline.log.kafka.reader import KafkaReader
from adledger.pipeline.log.kafka_admin.broker_retry import BrokerRetry
from adledger.pipeline.log.kafka_admin.cluster_client import ClusterClient
from adledger.pipeline.log.kafka_admin.connecting import bootstrapped
from adledger.pipeline.log.kafka_admin.failures import KAFKA_ERRORS, explain
from adledger.pipeline.log.kafka_admin.properties import SESSION_DEFAULT_MS, client_options, consumer_options
from adledger.pipeline.log.kafka_admin.rate_limited_log import RateLimitedLog
from adledger.pipeline.log.kafka_admin.topology import read_topology
from adledger.pipeline.log.kafka_admin.worker_info import NO_INFO, WorkerInfo
from adledger.pipeline.log.source import Assignment, Committed, GroupListener, OffsetBounds, Topology
from adledger.pipeline.records.encoded import Fetched
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.settings import Settings

REVOKE_MARGIN_MS = 5_000
"""Added to `revoke_ms_max`: how long a rebalance waits for a member before it continues without it."""
REQUEST_MARGIN_MS = 5_000
"""A join may be answered only when the rebalance is over: by at least this much, a request's timeout is longer."""
HEARTBEAT_MS = 1_000
"""A member learns of a rebalance with its next heartbeat, so handovers wait for it; Kafka's default is 3,000."""
REQUEST_TIMEOUT_MS = 40_000
"""aiokafka's defaults, where the [kafka] settings name none."""
LEADER_PAUSE_MS_MAX = 500
"""The longest pause between two reads of a lane whose leader is gone: the others elect one without notice."""


@dataclass(frozen=True, slots=True)
class _Joined:
    """The parts that exist between join and leave."""

    client: ClusterClient
    topology: Topology
    membership: Membership
    commits: GroupCommits
    reader: KafkaReader


class _NoLanes:
    """The listener of a source that only reads."""

    async def lanes_assigned(self, assignments: Collection[Assignment]) -> None:
        """Never called: it has not joined."""

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        """Do nothing: there are none to revoke."""


class KafkaSource:
    """An `adledger.pipeline.log.source.Source` over Kafka. Any number of members share a group's lanes.

    While a broker is away, calls retry and log each failed attempt; a lane's method raises LogError after the last
    attempt, and may be called again.
    """

    def __init__(
        self,
        servers: Sequence[str],
        topics: Sequence[str],
        group: str,
        *,
        properties: Mapping[str, str],
        log_time: LogTime,
        revoke_ms_max: int,
        retry: RetryPolicy,
        say: Callable[[str], None],
        info: WorkerInfo = NO_INFO,
    ) -> None:
        """`properties` are the [kafka] settings; `say` receives log lines; `info` is published in the group.

        Raises UsageError (properties).
        """
        self._options = client_options(servers, properties)
        self._group_options = {
            name: value
            for name, value in consumer_options(servers, properties).items()
            if name not in self._options
        }
        session_ms = self._group_options.get("session_timeout_ms", SESSION_DEFAULT_MS)
        self._group_options.setdefault("heartbeat_interval_ms", min(HEARTBEAT_MS, session_ms // 3))
        rebalance_ms = max(session_ms, revoke_ms_max + REVOKE_MARGIN_MS)
        self._group_options["rebalance_timeout_ms"] = rebalance_ms
        self._options["request_timeout_ms"] = max(
            self._options.get("request_timeout_ms", REQUEST_TIMEOUT_MS), rebalance_ms + REQUEST_MARGIN_MS
        )
        self._topics, self._group, self._log_time = tuple(topics), group, log_time
        self._say, self._info = say, info
        self._retry = retry
        self._servers = ",".join(servers)
        self._warnings: RateLimitedLog | None = None
        self._joined: _Joined | None = None

    @classmethod
    def of(cls, settings: Settings, say: Callable[[str], None], info: WorkerInfo = NO_INFO) -> Self:
        """Return the source that the settings name. Raises UsageError: not Kafka, or wrong properties."""
        if not isinstance(settings.source, KafkaAddress):
            raise UsageError(
                f"source = {settings.source}: not Kafka", remedy="name brokers: --source kafka://HOST:PORT"
            )
        return cls(
            settings.source.servers,
            settings.topics,
            settings.group,
            properties=settings.kafka,
            log_time=settings.log_time,
            revoke_ms_max=settings.revoke_ms_max,
            retry=RetryPolicy(settings.retry_attempts_max, settings.retry_backoff_ms_max),
            say=say,
            info=info,
        )

    @property
    def silent_seconds(self) -> float:
        """For how long no broker has answered; 0 while one does, or outside the group."""
        return 0.0 if self._joined is None else self._joined.client.silent_seconds

    async def join(self, listener: GroupListener) -> Topology:
        """Join the group; the listener receives lanes after this has returned.

        Raises LogError: no broker (after the last attempt), refused, unfit topics, joined already.
        """
        joined = await self._open(listener)
        joined.membership.join()
        return joined.topology

    async def look(self) -> Topology:
        """Connect without joining: `committed`, `bounds` and `fetch` work, and the group is unaffected. `leave` disconnects.

        Raises LogError as `join` does.
        """
        return (await self._open(_NoLanes())).topology

    async def _open(self, listener: GroupListener) -> _Joined:
        if self._warnings is not None:
            raise LogError(f"this member of group {self._group} has joined already", remedy="Leave first.")
        self._warnings = warnings = RateLimitedLog(self._say)
        warnings.open()
        retry = BrokerRetry(self._servers, self._retry, warnings.say)
        try:
            self._joined = await self._connect(listener, retry)
        except BaseException:
            self._close_warnings()
            raise
        return self._joined

    async def leave(self) -> None:
        """Revoke every lane (the listener is called), leave the group, and close all connections."""
        joined = self._joined
        if joined is None:
            return
        try:
            await joined.membership.leave()
        finally:
            self._joined = None
            await joined.client.close()
            self._close_warnings()

    async def rejoin(self) -> None:
        """Revoke every lane, and begin to join with a new member id; the old member is removed. Raises LogError without a join."""
        await self._require_joined().membership.rejoin()

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        """Return the group's committed positions of a lane. Raises LogError."""
        return await self._require_joined(lane).commits.committed(lane)

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        """Commit in the assignment's name, once. Raises CommitFenced, CommitRefused, CommitUnknown, LogError."""
        if self._joined is None:
            raise CommitFenced(
                f"lane {assignment.lane}: this worker has left group {self._group}",
                remedy="Nothing to do: the lane's next owner continues.",
            )
        joined = self._require_joined(assignment.lane)
        for position in positions.values():
            if len(position.metadata.encode()) > METADATA_BYTES_MAX:
                raise LogError(
                    f"lane {assignment.lane}: {len(position.metadata.encode())} bytes of commit metadata, "
                    f"more than {METADATA_BYTES_MAX}",
                    remedy="This is a bug: please report it with this message.",
                )
        await joined.commits.commit(assignment, positions)

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        """Return the first offset of a lane's topics, and their last stable offsets. Raises LogError."""
        return await self._require_joined(lane).reader.bounds(lane)

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        """Fetch as `Reader.fetch` says. One fetch per lane at a time; lanes don't wait for each other."""
        return await self._require_joined(lane).reader.fetch(lane, positions, bytes_max, wait_ms_max)

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        """Forget what was read of a lane, as `Reader.resume` says. Raises LogError."""
        self._require_joined(lane).reader.resume(lane, positions, leader_epochs)

    def leader_epochs(self, lane: int, positions: Mapping[int, int]) -> Mapping[int, int]:
        """Return the leader epochs before positions, as `Reader.leader_epochs` says. Raises LogError."""
        return self._require_joined(lane).reader.leader_epochs(lane, positions)

    async def _connect(self, listener: GroupListener, retry: BrokerRetry) -> _Joined:
        client = await bootstrapped(self._options, retry)
        try:
            topology = await read_topology(client, self._topics)
            await client.set_topics(self._topics)
        except KAFKA_ERRORS as error:
            explained = await explain(error, self._options)
            await client.close()
            raise explained from error
        except BaseException:
            await client.close()
            raise
        return _Joined(
            client,
            topology,
            Membership(client, self._group, self._topics, self._group_options, retry, listener, self._info),
            GroupCommits(
                client, self._group, self._topics, instance=self._group_options.get("group_instance_id")
            ),
            KafkaReader(
                client,
                topology,
                self._log_time,
                replace(retry, policy=retry.policy.oftener(LEADER_PAUSE_MS_MAX)),
            ),
        )

    def _require_joined(self, lane: int | None = None) -> _Joined:
        """Return the parts of a joined source. Raises LogError before join and after leave, and for a lane that does not exist."""
        joined = self._joined
        if joined is None:
            raise LogError(f"not a member of group {self._group}", remedy="Join first.")
        if lane is not None and not 0 <= lane < joined.topology.partitions:
            raise LogError(
                f"{', '.join(self._topics)} have no lane {lane}, only 0 to {joined.topology.partitions - 1}",
                remedy="A lane is a partition number: look at `adledger topics check`.",
            )
        return joined

    def _close_warnings(self) -> None:
        if self._warnings is not None:
            self._warnings.close()
            self._warnings = None
