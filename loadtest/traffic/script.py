"""The tools of a scenario's script: its own random numbers, times, and honest records to start from."""

import numpy as np
import numpy.typing as npt

from adledger.loadtest.traffic.kernels.arrive import click_delays
from adledger.loadtest.traffic.kernels.fill import fill_rows
from adledger.loadtest.traffic.kernels.finish import finish_rows
from adledger.loadtest.traffic.kernels.keys import KEY_BYTES_MAX
from adledger.loadtest.traffic.kernels.memory import SLACK_BYTES
from adledger.loadtest.traffic.kernels.shapes import I64, PLANNED, ROW, Records
from adledger.loadtest.traffic.labels import Label
from adledger.loadtest.traffic.lookup_tables import MASK64, Lookup, datacentres, mix64
from adledger.loadtest.traffic.model import HOUR_MS, Scenario, TrafficModel

U64 = npt.NDArray[np.uint64]

SLOTS_OF_SCENARIO = 2**40
"""Scenario k's events have slots from (k + 1) * 2^40 on: distinct ids, after those of any run."""

_USERS = 1 << 32  # a purpose of draws that no scenario names

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Script:
    """One scenario of a model. All arrays have one entry per event: actors * events_per_actor, actor by actor."""

    def __init__(self, model: TrafficModel, lookup: Lookup, number: int) -> None:
        self.model = model
        self.scenario: Scenario = model.scenarios[number]
        self._lookup = lookup
        self._key = np.uint64(mix64(mix64(model.seed) ^ (number + 1)))
        self._scratch = np.empty(KEY_BYTES_MAX + SLACK_BYTES, np.uint8)
        self.events = self.scenario.actors * self.scenario.events_per_actor
        self.actor = np.arange(self.events, dtype=np.int64) // self.scenario.events_per_actor
        self.slots = (number + 1) * SLOTS_OF_SCENARIO + np.arange(self.events, dtype=np.int64)

    @property
    def copies_ms_max(self) -> int:
        """The longest delay of a copy after its first."""
        return max(2, round(self.scenario.copies_hours_max * HOUR_MS))

    def draws(self, purpose: int) -> U64:
        """Return random bits for one purpose, one entry per event."""
        return _mixed(np.arange(self.events, dtype=np.uint64) * _GOLDEN ^ self._of(purpose))

    def actor_draws(self, purpose: int) -> U64:
        """Return random bits that are the same for all events of an actor."""
        return _mixed(self.actor.astype(np.uint64) * _GOLDEN ^ self._of(purpose) ^ np.uint64(1 << 63))

    def between(self, purpose: int, least: int, most: int) -> I64:
        """Return whole numbers in [least, most]."""
        return least + (self.draws(purpose) % np.uint64(most - least + 1)).astype(np.int64)

    def times(self) -> I64:
        """Return log times spread over the scenario's hours."""
        begin = self.model.start_ms + round(self.scenario.start_hour * HOUR_MS)
        return begin + self.between(0, 0, max(1, round(self.scenario.hours * HOUR_MS)))

    def impressions(self, log_times: I64, label: Label = Label.HONEST) -> Records:
        """Return honest impressions at these log times, half a second after their event times, each by a different user."""
        rows = self._fill(log_times, log_times, 0)
        rows["user_no"] = self.draws(_USERS)
        rows["event_time"] = log_times - 500
        rows["label"] = label
        return rows

    def clicks(
        self, impressions: Records, delays: I64, label: Label = Label.HONEST, *, more: int = 0
    ) -> Records:
        """Return a click on each impression, `delays` ms after it; `more` distinguishes several on one impression.

        They have the impressions' users, addresses and browsers.
        """
        rows = self._fill(impressions["log_time"] + delays, impressions["log_time"], 1)
        for name in (
            "user_no",
            "has_user",
            "long_ids",
            "ip_hi",
            "ip_lo",
            "ip6",
            "country",
            "user_agent",
            "publisher_id",
            "site_id",
        ):
            rows[name] = impressions[name]
        rows["event_time"] = impressions["event_time"] + delays
        rows["event_no"] = _mixed(rows["event_no"] + np.uint64(more))
        rows["variant"] = 1 + 2 * more
        rows["label"] = label
        return rows

    def copies(self, rows: Records, delays: I64, label: Label) -> Records:
        """Return the rows sent again within the window: duplicates. Changed ones become conflicts."""
        assert int(delays.max(initial=0)) <= self.model.dedupe_window_hours * HOUR_MS
        again = rows.copy()
        again["log_time"] += delays
        again["class_code"] = 2
        again["variant"] += 2
        again["label"] = label
        return again

    def human_delays(self) -> I64:
        """Return human delays before a click (ms)."""
        delays = np.empty(self.events, np.int64)
        click_delays(self._lookup.tables, self.slots, delays)
        return delays

    def set_users(self, rows: Records, numbers: U64) -> None:
        """Assign the rows to other users, who have cookies."""
        rows["user_no"] = numbers
        rows["has_user"] = 1

    def clockwork(self, least_ms: int, most_ms: int, purpose: int) -> I64:
        """Return log times at one constant gap per actor, within the scenario's hours if they fit."""
        span, each = max(1, round(self.scenario.hours * HOUR_MS)), self.scenario.events_per_actor
        gaps = least_ms + (
            self.actor_draws(purpose) % np.uint64(max(1, min(most_ms, span // each) - least_ms))
        ).astype(np.int64)
        spare = np.maximum(1, span - gaps * each)
        begin = self.actor_draws(purpose + 1) % spare.astype(np.uint64)
        number = np.arange(self.events, dtype=np.int64) % each
        start = self.model.start_ms + round(self.scenario.start_hour * HOUR_MS)
        return start + begin.astype(np.int64) + number * gaps

    def settle(self, rows: Records) -> None:
        """Give each actor one address, one browser and one id format: those of its first event."""
        first = self.actor * self.scenario.events_per_actor
        for name in ("ip_hi", "ip_lo", "ip6", "country", "user_agent", "long_ids"):
            rows[name] = rows[name][first]

    def set_datacentre(self, rows: Records, bits: U64) -> None:
        """Let the rows come from IPv4 addresses of hosting providers."""
        nets = [net for net in datacentres() if net.version == 4]
        bases = np.array([int(net.network_address) for net in nets], np.uint64)
        hosts = np.array([net.num_addresses - 2 for net in nets], np.uint64)
        chosen = (bits % np.uint64(len(nets))).astype(np.int64)
        address = bases[chosen] + np.uint64(1) + (bits >> np.uint64(20)) % hosts[chosen]
        self.set_ipv4(rows, address)

    def set_ipv4(self, rows: Records, address: U64) -> None:
        """Let the rows come from these IPv4 addresses."""
        rows["ip_hi"] = 0
        rows["ip_lo"] = np.uint64(0xFFFF00000000) | address
        rows["ip6"] = 0

    def finished(self, *parts: Records) -> Records:
        """Return the parts as one, with keys, partitions, money and classes that fit the rows."""
        rows = np.concatenate(parts)
        finish_rows(self._lookup.tables, rows, self._scratch)
        return rows

    def _fill(self, log_times: I64, slot_times: I64, variant: int) -> Records:
        planned = np.zeros(self.events, PLANNED)
        planned["log_time"] = log_times
        planned["slot_time"] = slot_times
        planned["slot"] = self.slots
        planned["variant"] = variant
        rows = np.empty(self.events, ROW)
        everywhere = np.ones(self.model.partitions, np.uint8)
        fill_rows(self._lookup.tables, planned, everywhere, self._scratch, rows)
        return rows

    def _of(self, purpose: int) -> np.uint64:
        return np.uint64(mix64(int(self._key) ^ purpose) & MASK64)


def _mixed(x: U64) -> U64:
    z = x + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64 = z ^ (z >> np.uint64(31))
    return mixed
