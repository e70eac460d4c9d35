"""Generated traffic has the shape that its knobs say. Seeds are fixed, so nothing here is random."""

import numpy as np
import pytest

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.labels import Label
from adledger.loadtest.traffic.model import Burst, TrafficModel

HOUR_MS = 3_600_000


def rows_of(**knobs) -> np.ndarray:
    model = TrafficModel(**{"events": 100_000, "duration_hours": 24.0, **knobs})
    return np.concatenate([chunk.rows.copy() for chunk in Generator(model).rows()])


@pytest.fixture(scope="module")
def day() -> np.ndarray:
    return rows_of()


def share(mask: np.ndarray) -> float:
    return float(mask.mean())


def test_shares_are_as_set(day: np.ndarray):
    """Clicks, copies, malformed and late records come in the shares that the model names."""
    first = day["variant"] < 2
    impressions = day["variant"] == 0
    assert share(day["event_type"][first] == 2) == pytest.approx(0.02, rel=0.1)
    assert share(day["variant"] >= 2) == pytest.approx(0.01, rel=0.15)
    assert share(day["label"][impressions] == Label.MALFORMED) == pytest.approx(0.001, rel=0.3)
    late = day["log_time"] - day["event_time"] > 120_000 + 10_000
    assert share(late[impressions]) == pytest.approx(0.011, rel=0.2)
    assert share(day["has_user"][impressions] == 0) == pytest.approx(0.08, rel=0.1)
    assert 0.15 < share(day["ip6"] > 0) < 0.5


def test_events_overtake_one_another():
    """A record takes about the model's delay; the more that varies, the farther events come behind later ones."""
    behind_ms = []
    for sigma in (0.0, 0.8, 2.0):
        rows = rows_of(
            events=30_000, duration_hours=0.5, transport_ms_median=2_000, transport_sigma=sigma, late_share=0.0,
            expired_share=0.0, skewed_clock_share=0.0, duplicate_share=0.0, click_share=0.0, malformed_share=0.0,
        )  # fmt: skip
        on_the_way = rows["log_time"] - rows["event_time"]
        assert np.median(on_the_way) == pytest.approx(2_000, rel=0.1)
        behind_ms.append((np.maximum.accumulate(rows["event_time"]) - rows["event_time"]).mean())
    assert behind_ms[0] == 0 < behind_ms[1] < behind_ms[2]


def test_publishers_are_zipf(day: np.ndarray):
    """The n-th publisher has about 1/n of the first one's traffic, with a long tail."""
    counts = np.bincount(day["publisher_id"] - 1000)
    harmonic = np.log(400_000) + 0.5772
    assert counts[0] / len(day) == pytest.approx(1 / harmonic, rel=0.1)
    assert counts[:10].sum() / len(day) == pytest.approx(2.93 / harmonic, rel=0.1)
    assert (counts > 0).sum() > 15_000


def test_the_day_has_its_rhythm(day: np.ndarray):
    """The busiest hour is the model's, and has about four times the traffic of the quietest."""
    by_hour = np.bincount(day["log_time"] // HOUR_MS % 24)[:24]
    assert int(by_hour.argmax()) in (19, 20)
    assert by_hour.max() / by_hour.min() == pytest.approx(4.0, rel=0.25)


def test_users_come_in_sessions(day: np.ndarray):
    """Most impressions have a neighbour of the same user within a quarter of an hour, with one browser and address."""
    impressions = day[(day["variant"] == 0)]
    order = np.lexsort((impressions["log_time"], impressions["user_no"]))
    ordered = impressions[order]
    same = ordered["user_no"][1:] == ordered["user_no"][:-1]
    near = same & (np.diff(ordered["log_time"]) < 15 * 60_000)
    assert share(near) > 0.6
    assert share((ordered["user_agent"][1:] == ordered["user_agent"][:-1])[near]) > 0.95
    assert share((ordered["ip_lo"][1:] == ordered["ip_lo"][:-1])[near]) > 0.95


def test_clicks_follow_their_impressions(day: np.ndarray):
    """A click has its impression's user, publisher and campaign, at least a second later, in either order in the log."""
    first = day[day["variant"] == 0]
    clicks = day[day["variant"] == 1]
    its = first[np.searchsorted(first["slot"], clicks["slot"])]
    assert (its["slot"] == clicks["slot"]).all()
    for name in ("user_no", "publisher_id", "campaign_id", "creative_id", "impression_no"):
        assert (its[name] == clicks[name]).all(), name
    delay = clicks["event_time"] - its["event_time"]
    assert delay.min() >= 1_000
    assert np.median(delay) == pytest.approx(20_000, rel=0.1)
    assert (clicks["log_time"] > its["log_time"]).all()
    known = (its["has_user"] > 0) & (its["misrouted"] == 0)
    assert (its["partition"] == clicks["partition"])[known].all()


def test_ids_are_unique(day: np.ndarray):
    """No two originals of one kind share an event id."""
    for kind in (1, 2):
        ids = day["event_no"][(day["variant"] < 2) & (day["event_type"] == kind)]
        assert len(np.unique(ids)) == len(ids)


def test_a_burst_has_its_records():
    """Ten minutes at twenty times the rate hold about as many records as they should."""
    rows = rows_of(bursts=(Burst(60, 10, 20.0),), day_peak_to_trough=1.0, duration_hours=10)
    minute = (rows["log_time"] - rows["log_time"].min()) // 60_000
    assert share((minute >= 60) & (minute < 70)) == pytest.approx(200 / 790, rel=0.05)


def test_hot_publishers_and_users():
    """Half of the traffic goes to one publisher, and half of the sessions are ten users'."""
    rows = rows_of(events=30_000, hot_publisher_share=0.5, hot_user_share=0.5)
    assert share(rows["publisher_id"] == 1000) == pytest.approx(0.54, rel=0.1)
    _, counts = np.unique(rows["user_no"], return_counts=True)
    assert np.sort(counts)[-10:].sum() / len(rows) == pytest.approx(0.5, rel=0.1)


def test_wrong_keys_are_flagged_only_where_they_are_wrong():
    """Producers with another partitioner or none are misrouted, others never; copies go where their originals went."""
    assert not rows_of(events=20_000, crc32_share=0, keyless_share=0, cookie_appears_share=0)[
        "misrouted"
    ].any()
    rows = rows_of(events=20_000, crc32_share=1.0, malformed_share=0, duplicate_share=0.5)
    assert share(rows["misrouted"] > 0) == pytest.approx(15 / 16, rel=0.02)
    order = np.lexsort((rows["variant"], rows["event_type"], rows["slot"]))
    ordered = rows[order]
    same = (ordered["slot"][1:] == ordered["slot"][:-1]) & (
        ordered["event_type"][1:] == ordered["event_type"][:-1]
    )
    assert same.sum() > 5_000
    assert (ordered["partition"][1:] == ordered["partition"][:-1])[same].all()
    assert rows_of(events=5_000, keyless_share=1.0, malformed_share=0)["misrouted"].all()
