"""Each scenario does what its label says, and nothing else that a rule would find."""

import ipaddress
import itertools
import json

import numpy as np
import pytest

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.kernels.shapes import SENDS_SIZE
from adledger.loadtest.traffic.labels import Label
from adledger.loadtest.traffic.lookup_tables import all_user_agents, bots, datacentres, user_agents
from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.loadtest.traffic.scenarios import (
    ATTACKS,
    DETECTABLE_FROM,
    GHOST_PUBLISHER_FIRST,
    LOOK_ALIKES,
    SCENARIOS,
    SUSPENDED_PUBLISHER_FIRST,
)
from adledger.pipeline.errors import UsageError
from adledger.schemas.classes import Class
from tests.support.plain_count import records_of

ACTORS, EVENTS = 5, 40


def played(kind: str) -> np.ndarray:
    """Return the scenario's own rows, in log order."""
    scenario = Scenario(kind=kind, actors=ACTORS, events_per_actor=EVENTS, start_hour=0.5, hours=1.0)
    model = TrafficModel(events=20_000, duration_hours=30, scenarios=(scenario,))
    rows = np.concatenate([chunk.rows.copy() for chunk in Generator(model).rows()])
    return rows[rows["slot"] >= 2**40]


def by_slot(rows: np.ndarray, **columns) -> np.ndarray:
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows[np.argsort(rows["slot"])]


def seen(rows: np.ndarray) -> np.ndarray:
    return by_slot(rows, variant=0)


@pytest.mark.parametrize("kind", SCENARIOS)
def test_every_event_is_played(kind: str):
    """Each actor's events occur in their hours, labelled; none is malformed or misrouted; only copies share ids."""
    rows = played(kind)
    assert len(seen(rows)) == ACTORS * EVENTS
    assert (rows["label"] == Label[kind.upper()]).sum() > 0
    assert set(rows["label"].tolist()) <= {Label.HONEST, Label[kind.upper()]}
    assert not rows["misrouted"].any()
    assert (rows["class_code"] != Class.MALFORMED).all()
    begin = TrafficModel().start_ms + 1_800_000
    assert (seen(rows)["log_time"] >= begin).all()
    assert (seen(rows)["log_time"] <= begin + 3_600_000 + 2_000).all()
    firsts = rows[rows["class_code"] != Class.DUPLICATE]
    assert len(np.unique(firsts[["event_no", "event_type"]])) == len(firsts)


def test_attacks_and_look_alikes_have_separate_labels():
    """Every scenario is one of the two, and their labels are disjoint."""
    assert {*ATTACKS, *LOOK_ALIKES} == set(SCENARIOS)
    assert all(Label.REPLAY <= Label[kind.upper()] < Label.OFFICE for kind in ATTACKS)
    assert all(Label[kind.upper()] >= Label.OFFICE for kind in LOOK_ALIKES)


@pytest.mark.parametrize("kind", ["replay", "price_conflict"])
def test_copies_are_conflicting_duplicates(kind: str):
    """They follow their originals within the window, in the same lane, with another payload."""
    rows = played(kind)
    again = by_slot(rows, variant=2)
    first = seen(rows)[np.searchsorted(seen(rows)["slot"], again["slot"])]
    assert (again["class_code"] == Class.DUPLICATE).all()
    assert again["conflict"].all()
    assert (again["partition"] == first["partition"]).all()
    changed = (again["price_micros"] != first["price_micros"]) | (again["event_time"] != first["event_time"])
    assert changed.all()
    delay = again["log_time"] - first["log_time"]
    assert delay.min() > 0
    assert delay.max() <= 12 * 3_600_000


def test_bots_are_in_data_centres():
    """Each bot has one address, of a hosting provider, and claims to be a browser."""
    rows = played("datacentre_bot")
    assert len(np.unique(rows[["user_no", "ip_lo"]])) == ACTORS
    for number in np.unique(rows["ip_lo"] & 0xFFFFFFFF).tolist():
        assert any(ipaddress.ip_address(number) in net for net in datacentres())
    assert (rows["user_agent"] < len(user_agents()[0])).all()
    assert 0.02 < (rows["event_type"] == 2).mean() < 0.2


def test_impostors_call_themselves_crawlers():
    """The user agent is a crawler's; the address is not a data centre's."""
    rows = played("impostor")
    first = len(user_agents()[0])
    assert ((rows["user_agent"] >= first) & (rows["user_agent"] < first + len(bots()[0]))).all()
    assert len(np.unique(rows["ip_lo"])) > ACTORS


@pytest.mark.parametrize(("kind", "least", "most"), [("double_click", 50, 1_900), ("double_tap", 80, 300)])
def test_second_clicks(kind: str, least: int, most: int):
    """The second click follows the first by the same user on the same creative; only the second is labelled."""
    rows = played(kind)
    one, two = by_slot(rows, variant=1), by_slot(rows, variant=3)
    assert len(one) == len(two) == ACTORS * EVENTS
    assert set(one["label"].tolist()) == {Label.HONEST}
    assert set(two["label"].tolist()) == {Label[kind.upper()]}
    for name in ("user_no", "creative_id", "impression_no", "publisher_id", "partition"):
        assert (one[name] == two[name]).all()
    gap = two["event_time"] - one["event_time"]
    assert gap.min() >= least
    assert gap.max() <= most
    assert (one["event_time"] - seen(rows)["event_time"]).min() >= 1_000


def test_injected_clicks_are_too_fast():
    """They come under half a second after an honest impression, which is first in the log."""
    rows = played("injected_click")
    gap = by_slot(rows, variant=1)["event_time"] - seen(rows)["event_time"]
    assert 0 < gap.min() <= gap.max() < 500
    assert (by_slot(rows, variant=1)["log_time"] > seen(rows)["log_time"]).all()


def test_a_flood_is_of_few_users_on_one_publisher():
    """There are as many clicks as impressions, by as many users as actors, on one publisher."""
    rows = played("click_flood")
    assert len(np.unique(rows["publisher_id"])) == 1
    assert len(np.unique(rows["user_no"])) == ACTORS
    assert (rows["event_type"] == 2).sum() == ACTORS * EVENTS


def test_repeated_clicks():
    """There are six clicks on one impression, too far apart for double clicks; those after the third are labelled."""
    rows = played("repeat_click")
    clicks = [by_slot(rows, variant=1 + 2 * k) for k in range(6)]
    assert {len(each) for each in clicks} == {ACTORS * EVENTS}
    assert [set(each["label"].tolist()) for each in clicks] == [{Label.HONEST}] * 3 + [
        {Label.REPEAT_CLICK}
    ] * 3
    for one, two in itertools.pairwise(clicks):
        assert (two["event_time"] - one["event_time"] == 5_000).all()
        assert (one["impression_no"] == two["impression_no"]).all()


def test_spliced_clicks_and_hidden_ads():
    """A spliced click names another campaign than its impression; a hidden ad states a placement of one pixel."""
    rows = played("spliced_click")
    impressions, clicks = seen(rows), by_slot(rows, variant=1)
    assert (impressions["campaign_id"] != clicks["campaign_id"]).all()
    assert (impressions["publisher_id"] == clicks["publisher_id"]).all()
    hidden = played("hidden_ad")
    assert (hidden["width_px"] == 1).all()
    assert (hidden["sends"] & SENDS_SIZE > 0).all()


def test_a_farm_is_one_cookie_in_many_networks():
    """Each actor is one user with one browser, seldom twice at one address."""
    rows = seen(played("cookie_farm"))
    assert len(np.unique(rows[["user_no", "user_agent", "long_ids"]])) == ACTORS
    assert len(np.unique(rows[["user_no", "ip_hi", "ip_lo"]])) > 0.7 * len(rows)


def test_declared_bots_and_blank_user_agents():
    """User agents are blank, a library's or a crawler's own, or the address is not routed. Each actor is one user."""
    texts = all_user_agents()
    crawlers, libraries = bots()
    assert {texts[n] for n in played("nameless_bot")["user_agent"].tolist()} == {""}
    assert {texts[n] for n in played("library_bot")["user_agent"].tolist()} <= set(libraries) - set(crawlers)
    spoofed = played("spoofed_address")
    assert all(ipaddress.ip_address(n).is_private for n in (spoofed["ip_lo"] & 0xFFFFFFFF).tolist())
    assert {texts[n].count("Googlebot") for n in played("crawler")["user_agent"].tolist()} == {1}
    for kind in ("crawler", "nameless_bot", "library_bot", "spoofed_address"):
        assert len(np.unique(played(kind)["user_no"])) == ACTORS


@pytest.mark.parametrize(("kind", "field"), [("prefetcher", "is_prefetch"), ("test_traffic", "is_test")])
def test_self_declared_records(kind: str, field: str):
    """Every labelled record states it in its bytes, with true, and no other record of the traffic does."""
    scenario = Scenario(kind=kind, actors=2, events_per_actor=20, start_hour=0.5, hours=1.0)
    model = TrafficModel(
        events=3_000, duration_hours=30, scenarios=(scenario,), malformed_share=0, odd_share=0, partitions=1
    )
    flagged, labelled = 0, 0
    for chunk in Generator(model).chunks():
        labelled += int((chunk.rows["label"] == Label[kind.upper()]).sum())
        for _, _, block in chunk.blocks:
            flagged += sum(json.loads(value).get(field, False) for _, _, value in records_of(block) if value)
    assert flagged == labelled > 0


@pytest.mark.parametrize("kind", ["ghost_publisher", "suspended_publisher"])
def test_actors_with_their_own_publishers(kind: str):
    """No ordinary publisher has such a high id; each actor has one, and clicks follow their impressions to it."""
    rows = played(kind)
    assert len(np.unique(rows["publisher_id"])) == ACTORS
    assert rows["publisher_id"].min() >= SUSPENDED_PUBLISHER_FIRST
    assert (rows["publisher_id"].min() >= GHOST_PUBLISHER_FIRST) == (kind == "ghost_publisher")


def test_orphans_and_late_clicks():
    """An orphan names an impression that is not in the log; a late click comes 31 to 55 minutes after its impression."""
    rows = played("orphan_click")
    assert not np.isin(by_slot(rows, variant=1)["impression_no"], seen(rows)["event_no"]).any()
    rows = played("late_click")
    gap = by_slot(rows, variant=1)["event_time"] - seen(rows)["event_time"]
    assert gap.min() >= 31 * 60_000
    assert gap.max() <= 55 * 60_000


def test_a_clockwork_is_regular():
    """Each actor's impressions are equally spaced; those before the eighth are not labelled."""
    rows = played("clockwork")
    for user in np.unique(rows["user_no"]):
        mine = by_slot(rows, user_no=user)
        gaps = np.diff(mine["event_time"])
        assert gaps.min() == gaps.max() >= 2_000
        assert (mine["label"] == Label.CLOCKWORK).tolist() == [n >= DETECTABLE_FROM for n in range(EVENTS)]


def test_look_alikes_share_addresses_not_cookies():
    """An office is one address, a carrier a few; their users differ by their cookies."""
    assert len(np.unique(played("office")["ip_lo"])) == 1
    assert len(np.unique(played("carrier_nat")["ip_lo"])) == 4
    for kind in ("office", "carrier_nat"):
        assert len(np.unique(played(kind)["user_no"])) == ACTORS


def test_slow_phones_send_all_at_once():
    """A phone's events arrive within seconds, and happened over minutes."""
    rows = seen(played("slow_phone"))
    for user in np.unique(rows["user_no"]):
        mine = rows[rows["user_no"] == user]
        assert np.ptp(mine["log_time"]) <= 2_000
        assert np.ptp(mine["event_time"]) > 300_000
        assert (mine["event_time"] < mine["log_time"]).all()


@pytest.mark.parametrize("kind", ["click_flood", "slow_phone", "office", "datacentre_bot"])
def test_an_actor_has_one_address_and_one_browser(kind: str):
    """No user is suspicious by accident: its events differ only in what the scenario is about."""
    rows = seen(played(kind))
    assert len(np.unique(rows["user_no"])) == ACTORS
    assert len(np.unique(rows[["user_no", "ip_hi", "ip_lo", "user_agent"]])) == ACTORS


def test_an_unknown_scenario_is_refused_by_name():
    """The error lists the scenarios that exist."""
    model = TrafficModel(events=10, scenarios=(Scenario(kind="heist"),))
    with pytest.raises(UsageError, match="heist") as caught:
        list(Generator(model).rows())
    assert "click_flood" in caught.value.remedy
