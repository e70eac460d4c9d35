"""Runs the lanes that a worker owns, independently: when one ends, the others go on.

A lane ends when it is revoked or has reached its end. It restarts after anything that may pass: a server that is
unavailable or refuses, without limit; a fault of its own (adledger.pipeline.lanes.faults), a few times. If an operator must
decide, it halts until there is an override. After a failure in our own code the lane's state is dropped and its next run
begins from the ledger: nothing that may be wrong is committed.
"""

import asyncio
import itertools
import traceback
from collections.abc import Callable

from adledger.pipeline.errors import (
    AdledgerError,
    CommitFenced,
    CommitUnknown,
    LaneHalted,
    LaneStopped,
    LogError,
    SinkError,
    UnreadableBatch,
)
from adledger.pipeline.lanes.catch_up import CatchUp
from adledger.pipeline.lanes.events import (
    Halted,
    LaneCrashed,
    LaneLeft,
    LaneLost,
    OverrideFound,
    Phase,
    PhaseChanged,
    RestartScheduled,
)
from adledger.pipeline.lanes.faults import FaultCount, crashed, fault_policy, unreadable
from adledger.pipeline.lanes.lane import Lane
from adledger.pipeline.lanes.owned_lane import OverrideWatch, OwnedLane
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.lanes.worker_events import RejoinStarted

OVERRIDE_POLL_SECONDS = 5
"""How often a halted lane looks for an operator override."""

REPORTED_EVERY_POLLS = 12
"""A halted lane logs the reason once a minute."""

LANE_RETRY_SECONDS = 15
"""A lane that a server refused restarts after this time, since the cause may have been fixed.

So does one whose log lacks the next offset: at its start it checks whether the ledger has it.
"""


class LaneRunner:
    """Runs one worker's lanes. `errors`: lane -> what halted it; `records`: how many are in the ledger."""

    def __init__(
        self,
        ports: Ports,
        slots: asyncio.Semaphore,
        catch_up: CatchUp | None,
        changed: Callable[[], None],
        rejoin: Callable[[], None],
    ) -> None:
        """`catch_up` None: the lanes have no end. `changed` is called when a lane has reached its end, or never will.

        `rejoin` makes the worker a new member: it has sent a commit whose outcome is unknown.
        """
        self.errors: dict[int, AdledgerError] = {}
        self.records = 0
        self._ports, self._slots, self._catch_up = ports, slots, catch_up
        self._changed, self._rejoin = changed, rejoin
        self._emit = ports.emit

    async def run(self, owned: OwnedLane) -> None:
        """Run a lane until it is stopped, has reached its end, or (with an end) halts."""
        watch = OverrideWatch(self._ports.overrides, owned.assignment.lane)
        faults = FaultCount(fault_policy(self._ports.limits.retry))
        await watch.has_new()  # overrides that exist already are not new
        while not owned.stopping.is_set():
            lane: Lane | None = None
            try:
                lane = owned.next_lane(self._ports, self._slots, self._catch_up)
                await self._run_once(owned, lane)
            except LaneHalted as error:
                pause = faults.pause_seconds(error, progressed=lane is not None and lane.progressed)
                if pause is not None:
                    await self._start_again(owned, error, pause)
                elif not await self._halt(owned, error, watch):
                    return
            except (LogError, SinkError) as error:
                if self._catch_up is not None:
                    await self._halt(owned, error, watch)
                    return
                await self._start_again(owned, error, LANE_RETRY_SECONDS)
            else:
                return

    async def _run_once(self, owned: OwnedLane, lane: Lane) -> None:
        """Run a lane once. Raises LaneHalted, LogError, SinkError."""
        topics = self._ports.topology.topics
        try:
            await lane.run()
        except CommitFenced as error:
            self._emit(LaneLost(lane.lane, error.message))
            return
        except LaneStopped as error:
            self._emit(LaneLeft(lane.lane, error.message))
            return
        except CommitUnknown as error:
            self._emit(RejoinStarted(lane.lane, error.message))
            self._rejoin()
            return
        except UnreadableBatch as error:
            raise unreadable(lane.lane, error, topics) from error
        except AdledgerError:
            raise
        except Exception as error:  # an impossible state never continues
            self._emit(LaneCrashed(lane.lane, "".join(traceback.format_exception(error)).rstrip()))
            owned.drop()
            raise crashed(lane.lane, error, lane.batch, topics) from error
        finally:
            self.records += lane.records
        if not owned.stopping.is_set():  # it has reached its end
            self._reached(lane.lane)

    def _reached(self, lane: int) -> None:
        if self._catch_up is not None:
            self._catch_up.reached(lane)
        self._changed()

    async def _start_again(self, owned: OwnedLane, error: AdledgerError, seconds: float) -> None:
        """Report that a lane starts again, and wait until then."""
        lane = owned.assignment.lane
        self._emit(RestartScheduled(lane, error.message, error.remedy, seconds))
        self._emit(PhaseChanged(lane, Phase.WAITING, error.message))
        await owned.stopped_within(seconds)

    async def _halt(self, owned: OwnedLane, error: AdledgerError, watch: OverrideWatch) -> bool:
        """Report a halted lane once a minute; returns True when there is a new override for it.

        Other lanes continue. False: the lane was revoked, or this worker ends when the others have caught up.
        """
        lane = owned.assignment.lane
        self.errors[lane] = error
        reason = error.reason if isinstance(error, LaneHalted) else None
        halted = Halted(lane, error.message, error.remedy, reason)
        self._emit(PhaseChanged(lane, Phase.HALTED, error.message))
        self._emit(halted)
        if self._catch_up is not None:
            self._reached(lane)
            return False
        for polls in itertools.count(1):
            if await owned.stopped_within(OVERRIDE_POLL_SECONDS):
                return False
            if await watch.has_new():
                break
            if polls % REPORTED_EVERY_POLLS == 0:
                self._emit(halted)
        self._emit(OverrideFound(lane))
        self.errors.pop(lane, None)
        return True
