"""The windows of the rules that look back: a lane's memory of impressions, clicks and users.

Their contents are a function of the lane's non-duplicate events within the horizon, taken one by one in the lane's
order; batch boundaries and restarts do not matter. A duplicate is not a new event: it is compared with its impression
as the first was, but neither counted nor tagged by the rules that count.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adledger.pipeline.kernels import rules_clicks as clicks
from adledger.pipeline.kernels import rules_rates as rates
from adledger.pipeline.kernels.rules_tables import persons
from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.records.columns import I64, U8, U64, Bool, EventColumns
from adledger.pipeline.rules.reach import MINUTE_MS, Reach
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet, RuleSetting
from adledger.pipeline.rules.tables import SlidingCounts, SlotTable
from adledger.schemas.classes import Reason
from adledger.schemas.wire import EventType, Flag

WINDOW_EVENTS_MAX = 32_000_000
"""The most events that a lane's windows remember; beyond it they reach back less far (adledger.pipeline.rules.reach)."""

ROWS_SPAN_MS_MAX = 2 * 86_400_000
"""The most log time that the rows of one call may span: ages are kept modulo 49 days."""

OF_IMPRESSIONS = (
    Reason.CLICK_NO_IMPRESSION,
    Reason.CLICK_TOO_FAST,
    Reason.CLICK_TOO_LATE,
    Reason.CLICK_MISMATCH,
)
WINDOWED = tuple(r for r, rule in RULES.items() if any(p.horizon_ms for p in rule.params))


@dataclass(frozen=True, slots=True)
class Rows:
    """n events of a lane in its order: columns, the watermark (ms, never decreasing), live and duplicate."""

    columns: EventColumns
    clock: I64
    live: Bool
    duplicate: Bool

    def part(self, rows: slice) -> "Rows":
        """Return some rows, as views."""
        columns = EventColumns(**{n: getattr(self.columns, n)[rows] for n in EventColumns.__slots__})
        return Rows(columns, self.clock[rows], self.live[rows], self.duplicate[rows])


class RuleWindows:
    """The windows of one lane under one rule set. Changing a horizon needs new windows, rebuilt from `events`."""

    def __init__(
        self, rules: RuleSet, events_max: int = WINDOW_EVENTS_MAX, secret: SlotSecret = KNOWN_SECRET
    ) -> None:
        """Begin empty. `secret`: of the slots of its tables, which decides nothing but where entries lie."""
        self._rules = _windowed(rules)
        self._horizons = {r: RULES[r].horizon_ms(dict(s.params)) for r, s in self._rules.items()}
        self._reach = Reach(max(self._horizons.values(), default=0), events_max)
        self._impressions = SlotTable(clicks.IMPRESSION_STRIDE, secret, int(clicks.OWN_MASK))
        self._seen = SlotTable(clicks.IMPRESSION_STRIDE, secret, int(clicks.SEEN_MASK))
        self._last_clicks = SlotTable(clicks.LAST_CLICK_STRIDE, secret)
        self._repeats = SlidingCounts(secret)
        self._events = SlidingCounts(secret)
        self._clicks = SlidingCounts(secret)
        self._networks = SlotTable(rates.USER_STRIDE, secret)
        self._arrivals = SlotTable(rates.USER_STRIDE, secret)

    def adopt(self, rules: RuleSet) -> bool:
        """Switch to another set from now on, unless a horizon or window changes or is added. Returns whether it switched.

        The contents of windows do not depend on thresholds and modes; another horizon needs windows of its own.
        """
        settings = _windowed(rules)
        if not _shape(settings).items() <= _shape(self._rules).items():
            return False
        self._rules = settings
        self._horizons = {r: RULES[r].horizon_ms(dict(s.params)) for r, s in settings.items()}
        return True

    @property
    def size_bytes(self) -> Mapping[str, int]:
        """Bytes of memory by window."""
        return {
            "impressions by publisher": self._impressions.size_bytes,
            "impressions by person": self._seen.size_bytes,
            "last clicks": self._last_clicks.size_bytes,
            "clicks by impression": self._repeats.size_bytes,
            "events by user": self._events.size_bytes,
            "clicks by user": self._clicks.size_bytes,
            "networks by user": self._networks.size_bytes,
            "arrivals by user": self._arrivals.size_bytes,
        }

    @property
    def horizon_ms(self) -> int:
        """How far back (ms of log time) the windows look; 0 if no rule that runs has one."""
        return max(self._horizons.values(), default=0)

    def clock_from(self, clock: int) -> int:
        """Return the watermark (ms) from which events make these windows as they are at `clock`."""
        return max(0, clock // MINUTE_MS * MINUTE_MS - self.horizon_ms)

    def apply(self, rows: Rows, hits: U64) -> dict[Reason, int]:
        """Evaluate rows and remember them; sets bits of `hits` (u64[n]). Returns rule -> events on which it was not evaluated."""
        missed: dict[Reason, int] = {}
        if not self._rules or not len(rows.clock):
            return missed
        assert rows.clock[-1] - rows.clock[0] <= ROWS_SPAN_MS_MAX, "a batch lies in one log day"
        for part, reach_ms in self._reach.segments(rows.clock, rows.live & ~rows.duplicate):
            here = rows.part(part)
            found = np.zeros(len(here.clock), np.uint64)
            self._evaluate(here, reach_ms, found)
            for reason, horizon_ms in self._horizons.items():
                if horizon_ms > reach_ms:
                    found &= np.uint64(~(1 << reason) & (2**64 - 1))
                    missed[reason] = missed.get(reason, 0) + int(np.count_nonzero(here.live))
            hits[part] |= found
        return missed

    def _evaluate(self, rows: Rows, reach_ms: int, hits: U64) -> None:
        keep_ms = reach_ms + MINUTE_MS
        counted = (rows.live & ~rows.duplicate).view(np.uint8)
        person = np.empty(len(rows.clock), np.uint64)
        c = rows.columns
        persons(c.user_hash, c.ip_hi, c.ip_lo, c.ua_hash, c.flags, person)
        self._evaluate_clicks(rows, person, counted, keep_ms, hits)
        has_id = (c.flags & np.uint16(1 << Flag.KEYED_BY_IP)) == 0
        self._evaluate_users(rows, (counted.view(np.bool_) & has_id).view(np.uint8), keep_ms, hits)

    def _evaluate_clicks(self, rows: Rows, person: U64, counted: U8, keep_ms: int, hits: U64) -> None:
        c, clock = rows.columns, int(rows.clock[0])
        click = c.event_type_code == EventType.CLICK
        if any(r in self._rules for r in OF_IMPRESSIONS):
            limits = self._impression_limits()
            entered = int(np.count_nonzero(counted) - np.count_nonzero(counted[click]))
            own, seen = self._impressions, self._seen
            for table in (own, seen):
                table.reserve(entered, clock, min(keep_ms, int(limits[[0, 1, 3, 5]].max())))
            taken = clicks.impressions(
                own.words, own.slots, seen.words, seen.slots, c.event_type_code, c.event_time, c.publisher_id,
                c.campaign_id, person, c.id_hash, c.impression_hash, rows.clock, rows.live, rows.duplicate, limits, hits,
            )  # fmt: skip
            own.taken, seen.taken = own.taken + taken[0], seen.taken + taken[1]
            hits &= np.uint64(~self._off_bits(OF_IMPRESSIONS) & (2**64 - 1))
        if not click.any():
            return
        at = np.flatnonzero(click & counted.view(np.bool_))
        if Reason.DOUBLE_CLICK in self._rules:
            p, horizon_ms = self._rules[Reason.DOUBLE_CLICK].params, self._horizons[Reason.DOUBLE_CLICK]
            table = self._last_clicks
            table.reserve(len(at), clock, min(keep_ms, horizon_ms))
            table.taken += clicks.double_clicks(
                table.words, table.slots, c.event_type_code, c.event_time, c.creative_id, person,
                c.impression_hash, c.flags, rows.clock, counted, horizon_ms, p["within_ms"], hits,
            )  # fmt: skip
        if Reason.REPEAT_CLICK in self._rules and len(at):
            p, horizon_ms = self._rules[Reason.REPEAT_CLICK].params, self._horizons[Reason.REPEAT_CLICK]
            found = np.zeros(len(at), np.uint64)
            self._repeats.count(
                c.impression_hash[at], c.publisher_id[at], rows.clock[at], np.ones(len(at), np.uint8), min(keep_ms, horizon_ms),
                p["clicks_max"], Reason.REPEAT_CLICK, found,
            )  # fmt: skip
            hits[at] |= found

    def _impression_limits(self) -> I64:
        """Return the `limits` of kernels.rules_clicks.impressions; -1 where a rule is off."""
        limits = np.full(6, -1, np.int64)
        places = {
            Reason.CLICK_NO_IMPRESSION: clicks.NO_IMPRESSION_MS,
            Reason.CLICK_TOO_FAST: clicks.FAST_HORIZON_MS,
            Reason.CLICK_TOO_LATE: clicks.LATE_HORIZON_MS,
            Reason.CLICK_MISMATCH: clicks.MISMATCH_MS,
        }
        for reason, place in places.items():
            limits[place] = self._horizons.get(reason, -1)
        if Reason.CLICK_TOO_FAST in self._rules:
            limits[clicks.FAST_MS] = self._rules[Reason.CLICK_TOO_FAST].params["gap_min_ms"]
        if Reason.CLICK_TOO_LATE in self._rules:
            limits[clicks.LATE_MS] = self._rules[Reason.CLICK_TOO_LATE].params["gap_max_minutes"] * MINUTE_MS
        return limits

    def _off_bits(self, reasons: tuple[Reason, ...]) -> int:
        return sum(1 << r for r in reasons if r not in self._rules)

    def _evaluate_users(self, rows: Rows, counted: U8, keep_ms: int, hits: U64) -> None:
        """Evaluate rates per user; `counted` (u8[n]): live, no duplicate, and the user has an id."""
        c, clock = rows.columns, int(rows.clock[0])
        users = int(np.count_nonzero(counted))
        if Reason.USER_VELOCITY in self._rules:
            self._evaluate_velocity(rows, counted, keep_ms, hits)
        if Reason.USER_MANY_IPS in self._rules:
            p, window_ms = self._rules[Reason.USER_MANY_IPS].params, self._horizons[Reason.USER_MANY_IPS]
            table = self._networks
            table.reserve(users, clock, min(keep_ms, window_ms))
            table.taken += rates.many_networks(
                table.words, table.slots, c.user_hash, c.ip_hi, c.ip_lo, rows.clock, counted, window_ms,
                p["networks_max"], np.uint64(1 << Reason.USER_MANY_IPS), hits,
            )  # fmt: skip
        if Reason.PERIODIC in self._rules:
            p, horizon_ms = self._rules[Reason.PERIODIC].params, self._horizons[Reason.PERIODIC]
            seen = counted & (c.event_type_code == EventType.IMPRESSION)
            table = self._arrivals
            table.reserve(int(np.count_nonzero(seen)), clock, min(keep_ms, horizon_ms))
            table.taken += rates.regular_arrivals(
                table.words, table.slots, c.user_hash, c.event_time, rows.clock, seen, horizon_ms,
                p["gap_min_ms"], p["tolerance_percent"], np.uint64(1 << Reason.PERIODIC), hits,
            )  # fmt: skip

    def _evaluate_velocity(self, rows: Rows, counted: U8, keep_ms: int, hits: U64) -> None:
        p = self._rules[Reason.USER_VELOCITY].params
        one_source = np.zeros(len(rows.clock), np.uint32)  # a user is one, on any publisher's page
        self._events.count(
            rows.columns.user_hash, one_source, rows.clock, counted, min(keep_ms, p["window_seconds"] * 1000),
            p["events_max"], Reason.USER_VELOCITY, hits,
        )  # fmt: skip
        clicked = counted & (rows.columns.event_type_code == EventType.CLICK)
        self._clicks.count(
            rows.columns.user_hash, one_source, rows.clock, clicked,
            min(keep_ms, p["clicks_window_minutes"] * MINUTE_MS), p["clicks_max"], Reason.USER_VELOCITY, hits,
        )  # fmt: skip


def _windowed(rules: RuleSet) -> dict[Reason, RuleSetting]:
    """Return the settings of the windowed rules that are run."""
    return {r: s for r, s in rules.rules.items() if r in WINDOWED and s.mode != Mode.OFF}


def _shape(settings: Mapping[Reason, RuleSetting]) -> dict[tuple[Reason, str], int]:
    """Return the parameters that say what windows hold: every horizon and window."""
    return {
        (r, p.name): s.params[p.name] for r, s in settings.items() for p in RULES[r].params if p.horizon_ms
    }
