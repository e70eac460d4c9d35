"""Which part of the whole day is replayed, so that what is measured per event holds for the whole.

A lane never sees another lane, and the tables see batches. So the sample is whole lanes: `lanes` of them out of
`Whole.lanes`, each with all of its own users and with all publishers, at its own rate, in batches as large as in
production; but of each hour only the first minute. One lane of 50 is thus 1/3000 of the day.

| what | in the sample |
| --- | --- |
| events | x scale |
| lanes, and users with them | x scale x 60 |
| publishers, campaigns | all: a lane has events of all of them |
| events of a lane in a minute, records of a batch, batches an event | as in the whole day |
| hours of log time, so periods, windows, retention | all 24 |
| ids in a lane's dedupe window | x 1/60: its memory is extrapolated by the table's own law |
"""

from dataclasses import dataclass
from fractions import Fraction

from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.errors import UsageError

DAY_SECONDS = 86_400
ACTIVE_MINUTES = 1
HOUR_MINUTES = 60
DAY_MS = 86_400_000
START_MS = 1_735_689_600_000
"""2025-01-01T00:00:00Z."""

OLD_DAYS, OLD_MINUTES = 4, 15
"""The sample starts with a few events from this many days before, which retention drops in the course of the day."""
OLD_SHARE = 0.02
EVENTS_LEAST = 1_000


@dataclass(frozen=True, slots=True)
class Whole:
    """The day to extrapolate to. `peak_per_second` is the rate that workers must carry."""

    events: int = 3_000_000_000
    lanes: int = 50
    users: int = 80_000_000
    publishers: int = 400_000
    batch_seconds: float = 5.0
    peak_per_second: int = 100_000

    @property
    def per_second(self) -> float:
        """Events a second, on average."""
        return self.events / DAY_SECONDS

    @property
    def batch_rows(self) -> int:
        """Records of a batch, on average."""
        return max(1, round(self.per_second / self.lanes * self.batch_seconds))


@dataclass(frozen=True, slots=True)
class Sample:
    """`lanes` of the whole day's."""

    whole: Whole
    lanes: int
    seed: int = 1

    @property
    def scale(self) -> Fraction:
        """Which part of the day it is."""
        return Fraction(self.lanes * ACTIVE_MINUTES, self.whole.lanes * HOUR_MINUTES)

    @property
    def day(self) -> TrafficModel:
        """The day's traffic."""
        return self._model(round(self.whole.events * self.scale), START_MS, 24.0, self.seed)

    @property
    def old(self) -> TrafficModel:
        """The few events of days before."""
        events = max(EVENTS_LEAST, round(self.whole.events * self.scale * OLD_SHARE))
        return self._model(events, START_MS - OLD_DAYS * DAY_MS, OLD_MINUTES / 60, self.seed + 1)

    def _model(self, events: int, start_ms: int, hours: float, seed: int) -> TrafficModel:
        users = max(1_000, self.whole.users * self.lanes // self.whole.lanes)
        return TrafficModel(
            seed=seed, events=events, partitions=self.lanes, start_ms=start_ms, duration_hours=hours,
            active_minutes_per_hour=ACTIVE_MINUTES if hours > 1 else HOUR_MINUTES,
            users=users, user_head_users=max(1, users // 800), publishers=self.whole.publishers,
        )  # fmt: skip


def samples(whole: Whole, scale: Fraction, seed: int = 1) -> list[Sample]:
    """Return the sample of this scale, after smaller ones, so that there are three where possible.

    The scale becomes that of a whole number of lanes. Raises UsageError: out of bounds.
    """
    lanes = round(scale * whole.lanes * HOUR_MINUTES)
    if not 1 <= lanes <= whole.lanes:
        least, most = Fraction(1, whole.lanes * HOUR_MINUTES), Fraction(1, HOUR_MINUTES)
        raise UsageError(f"--scale {scale} is out of bounds", remedy=f"from {least} (one lane) to {most}")
    wanted = {lanes, max(1, round(lanes / 3)), max(1, round(lanes / 10))}
    for more in (2, 1):
        if len(wanted) < 3 and more < lanes:
            wanted.add(more)
    return [Sample(whole, n, seed) for n in sorted(wanted)]
