"""The knobs of generated traffic: one frozen value that, with its seed, names every byte that is generated."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

from adledger.pipeline.errors import UsageError

HOUR_MS = 3_600_000
EVENTS_MAX = 2**40


@dataclass(frozen=True, slots=True)
class Burst:
    """Traffic times `factor` for `minutes`, from `start_minute` of the run on: a goal, a sale, a push message."""

    start_minute: int
    minutes: int
    factor: float


@dataclass(frozen=True, slots=True)
class Ramp:
    """Traffic for `seconds`, its rate going evenly from one to the other (records a second; only ratios matter)."""

    seconds: float
    rate_from: float
    rate_to: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Labelled actors within the traffic: `kind` is a name in `scenarios.SCENARIOS`.

    Each of `actors` does `events_per_actor` things (an impression with what belongs to it, a few records at most),
    spread over `hours` from `start_hour` of the run on.
    """

    kind: str
    actors: int = 20
    events_per_actor: int = 50
    start_hour: float = 1.0
    hours: float = 2.0
    copies_hours_max: float = 12.0  # copies come within this time: less for a run of seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficModel:
    """What traffic is like. A `_share` is a probability; other numbers carry their unit in the name.

    `events` counts records of every class, exactly; those of scenarios come on top. Equal models give equal bytes, in whatever pieces and by
    however many processes they are made. Raises UsageError when a knob is out of its bounds.
    """

    seed: int = 1
    events: int = 2_000_000
    partitions: int = 16

    # when: log time of the first record, and about how long the records take
    start_ms: int = 1_735_689_600_000  # 2025-01-01T00:00:00Z: after both real logs, since log time only rises
    duration_hours: float = 26.0
    day_peak_hour: float = 20.0
    day_peak_to_trough: float = 4.0
    active_minutes_per_hour: int = 60  # fewer: a day sampled, its hours as dense as a busier one's
    bursts: tuple[Burst, ...] = ()
    ramps: tuple[Ramp, ...] = ()  # instead of all of the above but start_ms: for load of seconds to hours

    # who
    publishers: int = 400_000
    publisher_zipf_exponent: float = 1.0
    hot_publisher_share: float = 0.0  # of sessions' visits, all to publisher 1,000
    users: int = 80_000_000
    user_tail_exponent: float = 0.5  # weight of user n is (n + user_head_users) ** -exponent
    user_head_users: int = 100_000
    hot_user_share: float = 0.0  # of sessions, all by one of ten users
    session_minutes: int = 15
    session_impressions_mean: float = 5.0
    mobile_share: float = 0.6  # of sessions
    cookieless_share: float = 0.08  # of users: user_id is empty, keyed by ip
    uuid_share: float = 0.1  # of producers: long ids instead of short ones

    # what
    campaigns: int = 20_000
    campaign_zipf_exponent: float = 0.8
    currency: str = "USD"  # the deployment's: sent by half of the producers, left out by the others
    second_currency: str = "EUR"
    second_currency_share: float = 0.0  # of campaigns
    click_share: float = 0.02  # of impressions
    click_delay_ms_median: int = 20_000
    click_delay_sigma: float = 1.3  # log-normal, at least 1 s
    click_reuses_id_share: float = 0.05  # of producers: a click has its impression's event_id

    # on the way
    transport_ms_median: int = 400
    transport_sigma: float = 0.8
    late_share: float = 0.01  # of impressions: minutes to hours on the way
    late_minutes_median: float = 20.0
    late_sigma: float = 1.4
    expired_share: float = 0.001  # of impressions: 23 to 48 hours on the way
    skewed_clock_share: float = 0.02  # of producers
    clock_skew_ms_max: int = 120_000  # either way

    # sent again
    duplicate_share: float = 0.01  # copies, of impressions and of clicks
    retry_at_once_weight: float = 0.70  # within 3 s
    retry_hours_weight: float = 0.20  # 1 to 23 h later
    retry_edge_weight: float = 0.03  # within 2 s of the end of the window
    retry_beyond_weight: float = 0.03  # 24 to 30 h later: not in the window any more
    conflict_weight: float = 0.02  # another price, campaign or time: a duplicate that is no retry
    resent_text_weight: float = 0.02  # another page or user agent, nothing that the fingerprint covers
    retry_restart_weight: float = 0.0  # later than at once, up to retry_restart_seconds_max: across a restart
    retry_restart_seconds_max: int = 60
    conflict_seconds_max: int = 600  # conflicts and texts that differ come so soon

    # broken or odd
    malformed_share: float = 0.001
    odd_share: float = 0.002  # valid, but not as the fast path likes it: escapes, RFC 3339 times, odd spaces
    spaced_json_share: float = 0.08  # of producers: json.dumps' spaces
    shuffled_json_share: float = 0.08  # of producers: another order of fields
    crc32_share: float = 0.002  # of producers: librdkafka's default partitioner
    keyless_share: float = 0.001  # of producers: no key, any partition
    cookie_appears_share: float = 0.05  # of cookieless clicks: keyed by a cookie that the impression had not
    roaming_share: float = 0.05  # of cookieless clicks: from another address than the impression

    scenarios: tuple[Scenario, ...] = ()  # attacks and honest look-alikes, labelled

    # The log's clock may run so much ahead of the log time that is planned here: nothing lies nearer to the end of
    # the dedupe window, to that of acceptance, or to the future that is refused. 0 where log times are as planned.
    edge_margin_minutes: int = 0

    # what the deployment is set to; the ground truth depends on it
    dedupe_window_hours: int = 24
    allowed_lateness_hours: int = 24

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0.0 <= value <= 1.0:
                raise UsageError(f"{field.name} = {value} is no share", remedy="give a number from 0 to 1")
            if field.name.endswith("_weight") and value < 0.0:
                raise UsageError(f"{field.name} = {value} is negative", remedy="give 0 or more")
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(
                    f"{name} = {getattr(self, name)} is out of bounds", remedy=f"give {least} to {most}"
                )

    @property
    def copy_weights(self) -> tuple[float, ...]:
        """Weights of the kinds of copies, in the order of `labels.COPY_LABELS`."""
        return (
            self.retry_at_once_weight, self.retry_hours_weight, self.retry_edge_weight,
            self.retry_beyond_weight, self.conflict_weight, self.resent_text_weight, self.retry_restart_weight,
        )  # fmt: skip

    @property
    def records_per_slot(self) -> float:
        """Expected records that one impression brings: itself, its clicks, and copies of both."""
        share = self.duplicate_share if sum(self.copy_weights) else 0.0
        return 1.0 + (1.0 - self.malformed_share) * (self.click_share * (1.0 + share) + share)

    def to_json(self) -> str:
        """Return all knobs as one JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the model that `to_json` wrote. Raises UsageError on an unknown knob."""
        knobs: dict[str, Any] = json.loads(text)
        unknown = set(knobs) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UsageError(
                f"unknown knobs: {', '.join(sorted(unknown))}", remedy="see loadtest/traffic/model.py"
            )
        knobs["scenarios"] = tuple(Scenario(**scenario) for scenario in knobs.get("scenarios", ()))
        knobs["bursts"] = tuple(Burst(**burst) for burst in knobs.get("bursts", ()))
        knobs["ramps"] = tuple(Ramp(**ramp) for ramp in knobs.get("ramps", ()))
        return cls(**knobs)


_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "events": (1, EVENTS_MAX),
    "partitions": (1, 1024),
    "start_ms": (1_577_836_800_000, 4_070_908_800_000),  # 2020..2099
    "duration_hours": (0.01, 24 * 366),
    "day_peak_to_trough": (1, 1000),
    "active_minutes_per_hour": (1, 60),
    "publishers": (1, 2**24),
    "users": (1, 2**31),
    "user_head_users": (1, 2**31),
    "user_tail_exponent": (0, 0.99),
    "session_minutes": (1, 240),
    "session_impressions_mean": (1, 1000),
    "campaigns": (1, 2**20),
    "click_delay_ms_median": (1_000, HOUR_MS),
    "click_delay_sigma": (0, 3),
    "transport_ms_median": (1, 60_000),
    "transport_sigma": (0, 2),
    "late_minutes_median": (1, 24 * 60),
    "late_sigma": (0, 2),
    "clock_skew_ms_max": (0, 240_000),  # 5 minutes ahead of its log time is malformed
    "retry_restart_seconds_max": (4, 24 * 3600),
    "conflict_seconds_max": (1, 24 * 3600),
    "edge_margin_minutes": (0, 6 * 60),
    "dedupe_window_hours": (1, 168),
    "allowed_lateness_hours": (1, 168),
}
