"""The scripted attacks and the honest look-alikes, each a function of its script.

Records that a rule should find have the attack's label; those around them are HONEST: the impression before an injected
click, the first click of two.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from adledger.loadtest.traffic.kernels.shapes import ROW, SENDS_PREFETCH, SENDS_SIZE, SENDS_TEST, Records
from adledger.loadtest.traffic.labels import Label
from adledger.loadtest.traffic.lookup_tables import Lookup, all_user_agents, bots, user_agents
from adledger.loadtest.traffic.model import HOUR_MS, TrafficModel
from adledger.loadtest.traffic.script import Script
from adledger.pipeline.errors import UsageError

MINUTE_MS = 60_000

GHOST_PUBLISHER_FIRST, SUSPENDED_PUBLISHER_FIRST = 4_000_000_000, 3_900_000_000
"""Publishers that ordinary traffic never has; imported publishers must have the second kind as suspended."""

DETECTABLE_FROM = 7
"""The impressions of a clockwork before the first that can be detected: a gap is known from two."""


def replay(script: Script) -> Records:
    """Send captured impressions again, minutes to hours later, with a fresh time: conflicting duplicates."""
    seen = script.impressions(script.times())
    most = min(script.copies_ms_max, script.model.dedupe_window_hours * HOUR_MS)
    again = script.copies(seen, script.between(1, min(MINUTE_MS, most // 2), most), Label.REPLAY)
    again["event_time"] = again["log_time"] - 300
    again["conflict"] = 1
    return script.finished(seen, again)


def price_conflict(script: Script) -> Records:
    """Send an impression again, within ten minutes, at twice the price."""
    seen = script.impressions(script.times())
    again = script.copies(
        seen, script.between(1, 1, min(script.copies_ms_max, 10 * MINUTE_MS)), Label.PRICE_CONFLICT
    )
    again["price_micros"] = 2 * again["price_micros"] + 1
    again["conflict"] = 1
    return script.finished(seen, again)


def datacentre_bot(script: Script) -> Records:
    """Browse by program from data centres: an address and a user for each bot; one impression in ten is clicked."""
    seen = script.impressions(script.times(), Label.DATACENTRE_BOT)
    script.set_users(seen, script.actor_draws(1))
    script.settle(seen)
    script.set_datacentre(seen, script.actor_draws(2))
    clicked = script.draws(3) % np.uint64(10) == 0
    clicks = script.clicks(seen, script.between(4, 1_000, 5_000), Label.DATACENTRE_BOT)
    return script.finished(seen, clicks[clicked])


def impostor(script: Script) -> Records:
    """Pretend to be a crawler, from a consumer's address."""
    seen = script.impressions(script.times(), Label.IMPOSTOR)
    crawlers = len(bots()[0])
    seen["user_agent"] = len(user_agents()[0]) + (script.actor_draws(1) % np.uint64(crawlers)).astype(
        np.int64
    )
    return script.finished(seen)


def double_click(script: Script) -> Records:
    """Click the same creative a second time, 50 ms to 1.9 s after an honest first."""
    return _two_clicks(script, 50, 1_900, Label.DOUBLE_CLICK)


def double_tap(script: Script) -> Records:
    """Tap twice, as a nervous thumb does: 80 to 300 ms apart. The second tap is not a second visit (DOUBLE_CLICK)."""
    return _two_clicks(script, 80, 300, Label.DOUBLE_TAP)


def click_flood(script: Script) -> Records:
    """Let a few users click on every ad of one publisher, all the time."""
    seen = script.impressions(script.times(), Label.CLICK_FLOOD)
    script.set_users(seen, script.actor_draws(1))
    script.settle(seen)
    seen["publisher_id"] = seen["publisher_id"][:1]
    seen["site_id"] = seen["site_id"][:1]
    return script.finished(seen, script.clicks(seen, script.between(2, 600, 3_000), Label.CLICK_FLOOD))


def injected_click(script: Script) -> Records:
    """Click 5 to 450 ms after the impression: faster than any hand."""
    seen = script.impressions(script.times())
    return script.finished(seen, script.clicks(seen, script.between(1, 5, 450), Label.INJECTED_CLICK))


def repeat_click(script: Script) -> Records:
    """Click six times on one impression, five seconds apart: the clicks after the third are not a reader's visits."""
    seen = script.impressions(script.times())
    delays = script.human_delays()
    labels = [Label.HONEST] * 3 + [Label.REPEAT_CLICK] * 3
    clicks = [script.clicks(seen, delays + 5_000 * k, label, more=k) for k, label in enumerate(labels)]
    return script.finished(seen, *clicks)


def spliced_click(script: Script) -> Records:
    """Click for another campaign than the one that was shown."""
    seen = script.impressions(script.times())
    clicks = script.clicks(seen, script.human_delays(), Label.SPLICED_CLICK)
    clicks["campaign_id"] += 1
    return script.finished(seen, clicks)


def hidden_ad(script: Script) -> Records:
    """Show ads in a frame of one pixel."""
    seen = script.impressions(script.times(), Label.HIDDEN_AD)
    seen["width_px"] = seen["height_px"] = 1
    seen["sends"] |= SENDS_SIZE
    return script.finished(seen)


def cookie_farm(script: Script) -> Records:
    """Use one cookie on many machines, each in a network of its own."""
    seen = script.impressions(script.times(), Label.COOKIE_FARM)
    script.set_users(seen, script.actor_draws(1))
    addresses = [seen[name].copy() for name in ("ip_hi", "ip_lo", "ip6")]
    script.settle(seen)
    for name, own in zip(("ip_hi", "ip_lo", "ip6"), addresses, strict=True):
        seen[name] = own
    return script.finished(seen)


def nameless_bot(script: Script) -> Records:
    """Fetch ads by a program that does not identify itself: an empty user agent."""
    seen = _one_browser_each(script, Label.NAMELESS_BOT)
    seen["user_agent"] = len(all_user_agents()) - 1
    return script.finished(seen)


def crawler(script: Script) -> Records:
    """Crawl openly, from the crawler's own addresses: not fraud, but not a visit either."""
    seen = _one_browser_each(script, Label.CRAWLER)
    seen["user_agent"] = len(user_agents()[0])  # the catalog's first: Googlebot
    script.set_ipv4(seen, np.uint64(0x42F94200) + script.actor_draws(2) % np.uint64(256))  # 66.249.66.0/24
    return script.finished(seen)


def library_bot(script: Script) -> Records:
    """Fetch ads by a library or a headless browser that identifies itself."""
    crawlers, libraries = bots()
    seen = _one_browser_each(script, Label.LIBRARY_BOT)
    chosen = (script.actor_draws(2) % np.uint64(len(libraries))).astype(np.int64)
    seen["user_agent"] = len(user_agents()[0]) + len(crawlers) + chosen
    return script.finished(seen)


def spoofed_address(script: Script) -> Records:
    """Use addresses that don't exist on the internet: private ones, as in a forged header."""
    seen = _one_browser_each(script, Label.SPOOFED_ADDRESS)
    nets = np.array([0x0A000000, 0xAC100000, 0xC0A80000], np.uint64)  # 10/8, 172.16/12, 192.168/16
    bits = script.actor_draws(2)
    script.set_ipv4(
        seen, nets[(bits % np.uint64(3)).astype(np.int64)] + (bits >> np.uint64(32)) % np.uint64(0xFFFF)
    )
    return script.finished(seen)


def prefetcher(script: Script) -> Records:
    """Show ads on pages that a browser prefetched but no user opened."""
    seen = script.impressions(script.times(), Label.PREFETCHER)
    seen["sends"] |= SENDS_PREFETCH
    return script.finished(seen)


def test_traffic(script: Script) -> Records:
    """Try out an ad slot: impressions and clicks marked as a test."""
    seen = script.impressions(script.times(), Label.TEST_TRAFFIC)
    seen["sends"] |= SENDS_TEST
    clicks = script.clicks(seen, script.human_delays(), Label.TEST_TRAFFIC)
    clicks["sends"] |= SENDS_TEST
    return script.finished(seen, clicks)


def ghost_publisher(script: Script) -> Records:
    """Sell under publishers without a contract."""
    return _of_publishers(script, GHOST_PUBLISHER_FIRST, Label.GHOST_PUBLISHER)


def suspended_publisher(script: Script) -> Records:
    """Keep selling after the contract was suspended."""
    return _of_publishers(script, SUSPENDED_PUBLISHER_FIRST, Label.SUSPENDED_PUBLISHER)


def orphan_click(script: Script) -> Records:
    """Click on impressions that never happened."""
    seen = script.impressions(script.times())
    clicks = script.clicks(seen, script.human_delays(), Label.ORPHAN_CLICK)
    clicks["impression_no"] = script.draws(1)
    return script.finished(seen, clicks)


def late_click(script: Script) -> Records:
    """Click half an hour or more after the impression, from a store of them."""
    seen = script.impressions(script.times())
    return script.finished(
        seen, script.clicks(seen, script.between(1, 31 * MINUTE_MS, 55 * MINUTE_MS), Label.LATE_CLICK)
    )


def clockwork(script: Script) -> Records:
    """Show ads by a timer, at equal intervals; it is detectable from the eighth on."""
    seen = script.impressions(script.clockwork(2_000, 5 * MINUTE_MS, 2), Label.CLOCKWORK)
    script.set_users(seen, script.actor_draws(1))
    script.settle(seen)
    early = np.arange(script.events) % script.scenario.events_per_actor < DETECTABLE_FROM
    seen["label"][early] = Label.HONEST
    return script.finished(seen)


def office(script: Script) -> Records:
    """Put many people behind one address, each with a cookie: all actors are one office."""
    seen = script.impressions(script.times(), Label.OFFICE)
    script.set_users(seen, script.actor_draws(1))
    script.settle(seen)
    script.set_ipv4(
        seen, np.full(script.events, 0x5680_0A17, np.uint64)
    )  # 86.128.10.23, a line for businesses
    clicked = script.draws(2) % np.uint64(50) == 0
    return script.finished(seen, script.clicks(seen, script.human_delays(), Label.OFFICE)[clicked])


def carrier_nat(script: Script) -> Records:
    """Put a carrier's phones behind four addresses, between which they switch."""
    seen = script.impressions(script.times(), Label.CARRIER_NAT)
    script.set_users(seen, script.actor_draws(1))
    script.settle(seen)
    script.set_ipv4(seen, np.uint64(0x3120_5010) + script.draws(2) % np.uint64(4))  # 49.32.80.16 ff.
    clicked = script.draws(3) % np.uint64(50) == 0
    return script.finished(seen, script.clicks(seen, script.human_delays(), Label.CARRIER_NAT)[clicked])


def slow_phone(script: Script) -> Records:
    """Deliver ten minutes of events at once, like a phone that was offline."""
    spread = script.between(1, 0, 10 * MINUTE_MS)
    flush = script.times()[script.actor * script.scenario.events_per_actor] + script.between(2, 0, 2_000)
    seen = script.impressions(flush, Label.SLOW_PHONE)
    script.set_users(seen, script.actor_draws(3))
    script.settle(seen)
    seen["event_time"] = flush - spread - 500
    return script.finished(seen)


def _one_browser_each(script: Script, label: Label) -> Records:
    seen = script.impressions(script.times(), label)
    script.set_users(seen, script.actor_draws(1))
    script.settle(seen)
    return seen


def _of_publishers(script: Script, first: int, label: Label) -> Records:
    """Return impressions of this attack's own publishers, one per actor, and a click on one in twenty."""
    seen = script.impressions(script.times(), label)
    seen["publisher_id"] = first + script.actor
    clicked = script.draws(1) % np.uint64(20) == 0
    return script.finished(seen, script.clicks(seen, script.human_delays(), label)[clicked])


def _two_clicks(script: Script, least_ms: int, most_ms: int, label: Label) -> Records:
    seen = script.impressions(script.times())
    delays = script.human_delays()
    first = script.clicks(seen, delays)
    second = script.clicks(seen, delays + script.between(1, least_ms, most_ms), label, more=1)
    return script.finished(seen, first, second)


SCENARIOS: Mapping[str, Callable[[Script], Records]] = {
    function.__name__: function
    for function in (
        replay, datacentre_bot, impostor, double_click, click_flood, injected_click, price_conflict,
        repeat_click, spliced_click, hidden_ad, cookie_farm,
        crawler, nameless_bot, library_bot, spoofed_address, prefetcher, test_traffic, ghost_publisher, suspended_publisher,
        orphan_click, late_click, clockwork,
        office, carrier_nat, double_tap, slow_phone,
    )
}  # fmt: skip

ATTACKS: Sequence[str] = tuple(kind for kind in SCENARIOS if Label[kind.upper()] < Label.OFFICE)
LOOK_ALIKES: Sequence[str] = tuple(kind for kind in SCENARIOS if Label[kind.upper()] >= Label.OFFICE)


def scenario_rows(model: TrafficModel, lookup: Lookup) -> Records:
    """Return all rows (ROW) of the model's scenarios in log order. Raises UsageError for an unknown kind."""
    unknown = [scenario.kind for scenario in model.scenarios if scenario.kind not in SCENARIOS]
    if unknown:
        raise UsageError(f"there is no scenario {unknown[0]!r}", remedy=f"Known are {', '.join(SCENARIOS)}.")
    assert len(all_user_agents()) < 2**16, "a row counts user agents in 16 bits"
    parts = [SCENARIOS[s.kind](Script(model, lookup, number)) for number, s in enumerate(model.scenarios)]
    rows = np.concatenate([np.zeros(0, ROW), *parts])
    return rows[np.lexsort((rows["variant"], rows["slot"], rows["log_time"]))]
