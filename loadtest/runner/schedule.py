"""The schedule of records. An open loop: it is fixed before the load begins, and never waits for the system.

The traffic model plans each record's log time; the schedule maps those times to the wall clock. For live load they
differ only by the time that the start took; a replay's hours pass in seconds.
"""

from dataclasses import dataclass
from typing import Any

from adledger.loadtest.profiles.profile import CONSTANT, RAMPING, REPLAY, Profile
from adledger.loadtest.traffic.model import HOUR_MS, Ramp, TrafficModel
from adledger.pipeline.errors import UsageError
from adledger.pipeline.settings import Settings

TICK_MS = 50
"""Records due within one tick are sent together at its end, as by a producer with linger.ms."""
MAX_PLANNED_RATE = 1_000_000
"""`--rate max`: planned events a second, more than any broker here accepts."""
MAX_EVENTS = 20_000_000
"""The number of events after which `--rate max` ends: they have to fit on a disk."""
MARGIN_MINUTES = 10
"""The margin of a live run's clocks around every edge: more than it can be late."""
REPLAY_MARGIN_SECONDS = 10
MARGIN_MINUTES_MAX = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Maps planned times (ms) to the wall clock. `speed`: planned ms per ms; 0: as fast as possible.

    Exactly the records planned for `start_ms` <= t < `end_ms` are sent. The first `warm_up_seconds` are not measured.
    """

    start_ms: int
    end_ms: int
    speed: float
    warm_up_seconds: float
    seconds: float

    @property
    def total_seconds(self) -> float:
        """Warm-up and load."""
        return self.warm_up_seconds + self.seconds

    def due_ms(self, planned_ms: int, go_ms: int) -> int:
        """Return when a record of this planned time is due, if the load began at `go_ms`."""
        return go_ms + (int((planned_ms - self.start_ms) / self.speed) if self.speed else 0)

    @property
    def tick_planned_ms(self) -> int:
        """A tick, in ms of the plan."""
        return max(1, round(TICK_MS * (self.speed or 1.0)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run sends: the traffic and its schedule."""

    model: TrafficModel
    schedule: Schedule
    rate: float  # events a second, the largest of the schedule; 0: max


def plan(
    profile: Profile, settings: Settings, *, seed: int, now_ms: int, rate: float | None, seconds: float | None
) -> Plan:
    """Return what a profile sends from now on. `rate` (0: max) and `seconds` override the profile's.

    Raises UsageError where they contradict the executor.
    """
    load = profile.load
    if load.executor == REPLAY:
        return _replay(profile, settings, seed, now_ms, rate, seconds)
    if load.executor == RAMPING and (rate == 0 or seconds is not None):
        raise UsageError(
            f"{profile.name} is {RAMPING}: its stages set the duration, and it has no rate max",
            remedy=f"leave --duration out and scale the stages by --rate, or take a profile of {CONSTANT}",
        )
    wanted = load.rate if rate is None else rate
    if load.executor == RAMPING:
        scale = wanted / load.rate
        steps, at = (
            [Ramp(load.warm_up_seconds, load.start_rate * scale, load.start_rate * scale)],
            load.start_rate,
        )
        for stage in load.stages:
            steps.append(Ramp(stage.seconds, at * scale, stage.target * scale))
            at = stage.target
    else:
        length = load.warm_up_seconds + (load.seconds if seconds is None else seconds)
        planned = wanted or MAX_PLANNED_RATE
        steps = [Ramp(min(length, MAX_EVENTS / planned) if not wanted else length, planned, planned)]
    ramps = tuple(ramp for ramp in steps if ramp.seconds > 0)
    total = sum(ramp.seconds for ramp in ramps)
    events = sum(ramp.seconds * (ramp.rate_from + ramp.rate_to) / 2 for ramp in ramps)
    model = _model(
        profile, settings, seed, start_ms=now_ms, events=events, ramps=ramps, margin=MARGIN_MINUTES
    )
    measured = total - load.warm_up_seconds if wanted else length - load.warm_up_seconds
    schedule = Schedule(
        start_ms=now_ms, end_ms=now_ms + round(total * 1_000), speed=1.0 if wanted else 0.0,
        warm_up_seconds=load.warm_up_seconds, seconds=measured,
    )  # fmt: skip
    return Plan(model, schedule, wanted)


def _replay(
    profile: Profile, settings: Settings, seed: int, now_ms: int, rate: float | None, seconds: float | None
) -> Plan:
    load = profile.load
    wanted = load.rate if rate is None else rate
    if not wanted or load.warm_up_seconds:
        raise UsageError(
            f"{profile.name} is a {REPLAY}: it has neither a rate max nor a warm-up",
            remedy='set --rate to a number, and warm_up = "0s" in the profile',
        )
    length = load.seconds if seconds is None else seconds
    speed = profile.replay_hours * 3_600 / length
    start_ms = (now_ms - round(profile.replay_hours * HOUR_MS)) // 60_000 * 60_000
    margin = min(MARGIN_MINUTES_MAX, max(MARGIN_MINUTES, round(speed * REPLAY_MARGIN_SECONDS / 60)))
    model = _model(profile, settings, seed, start_ms=start_ms, events=wanted * length, margin=margin,
                   duration_hours=profile.replay_hours)  # fmt: skip
    schedule = Schedule(
        start_ms=start_ms, end_ms=start_ms + round(profile.replay_hours * HOUR_MS), speed=speed,
        warm_up_seconds=0.0, seconds=length,
    )  # fmt: skip
    return Plan(model, schedule, wanted)


def _model(
    profile: Profile, settings: Settings, seed: int, *, events: float, margin: int, **more: Any
) -> TrafficModel:
    return TrafficModel(**{
        **profile.traffic, **more, "seed": seed, "events": max(1, round(events)), "edge_margin_minutes": margin,
        "partitions": profile.load.partitions, "currency": settings.currency,
        "dedupe_window_hours": settings.dedupe_window_hours, "allowed_lateness_hours": settings.allowed_lateness_hours,
    })  # fmt: skip
