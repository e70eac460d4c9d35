"""The doctor's findings, as functions of facts."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.doctor import clocks, group, keys, machine
from adledger.pipeline.doctor.planning import inserts_per_second, memory_bytes, plan
from adledger.pipeline.doctor.report import Check, CheckState, as_json, found_wrong
from adledger.pipeline.doctor.rules import NO_TABLES, RulesFacts, rules_checks
from adledger.pipeline.findings import Finding
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.log.kafka_admin.group_facts import GroupFacts, GroupMember
from adledger.pipeline.rules.loader import today
from adledger.pipeline.settings import MIB, Settings
from adledger.pipeline.stages.plain_hashes import partition_of
from adledger.sinks.rules import PublishedRules
from tests.support.rule_sets import rule_set

IDS = st.text(min_size=1, max_size=20)
SETTINGS = Settings(source="kafka://h:1", list_age_days_max=3_650)
MEMORY = 64 * 1024 * MIB


@given(user=IDS, ip=IDS, lanes=st.integers(2, 64), by_ip=st.booleans())
def test_librdkafkas_default_partitioner_is_recognised(user, ip, lanes, by_ip):
    """Whatever the id, a misrouted event with its right key in the lane of its CRC-32 comes from librdkafka's default."""
    event = {"user_id": "" if by_ip else user, "ip": ip}
    key = (ip if by_ip else user).encode()
    lane = zlib.crc32(key) % lanes
    if partition_of(key, lanes) != lane:
        assert keys.why_misrouted(event, key, lane, lanes) == keys.CRC32
    assert keys.why_misrouted(event, None, lane, lanes) == keys.NO_KEY
    assert keys.why_misrouted(event, key + b"x", lane, lanes) == keys.OTHER_KEY


def sample(records: int, **counts: int) -> keys.KeySample:
    found = keys.KeySample("t", records)
    found.misrouted.update({getattr(keys, name): count for name, count in counts.items()})
    found.key_fields.update({"event_id": counts.get("OTHER_KEY", 0)})
    return found


@pytest.mark.parametrize(
    ("counts", "message", "remedy"),
    [
        ({"CRC32": 9, "OTHER_PARTITIONER": 0}, "by CRC-32", "partitioner=murmur2_random"),
        ({"CRC32": 3, "OTHER_PARTITIONER": 6}, "by neither", "partitioner=murmur2_random"),
        ({"NO_KEY": 9}, "no key", "user_id"),
        ({"OTHER_KEY": 9}, "another key than their user: event_id", "user_id"),
    ],
)
def test_each_mistake_of_a_producer_has_its_remedy(counts, message, remedy):
    """Each mistake is one finding; from one record in a hundred on it is an error, below that advice."""
    [finding] = keys.findings(sample(100, **counts))
    assert message in finding.message
    assert remedy in finding.remedy
    assert not finding.advice
    [rare] = keys.findings(sample(100_000, **counts))
    assert rare.advice


def test_an_empty_topic_and_right_keys_have_no_findings():
    """Neither an empty topic nor correct keys have findings."""
    assert not list(keys.findings(sample(0)))
    assert not list(keys.findings(sample(1_000)))


@given(lanes=st.integers(1, 1_000), workers=st.integers(0, 50))
def test_too_many_inserts_are_found_and_the_remedy_suffices(lanes, workers):
    """The number of workers that the finding recommends has no finding left."""
    found = list(plan(SETTINGS, lanes, workers, 0, MEMORY))
    wanted = inserts_per_second(SETTINGS, lanes)
    assert bool(found) == (wanted > SETTINGS.inserts_per_second_max * max(workers, 1))
    if found:
        enough = int(found[0].remedy.split()[1])
        assert not list(plan(SETTINGS, lanes, enough, 0, MEMORY))


@given(lanes=st.integers(1, 200), events=st.integers(0, 10**9))
def test_memory_grows_with_lanes_and_events(lanes, events):
    """More work never lowers the estimate, and a machine without enough memory is a finding."""
    needed = memory_bytes(SETTINGS, lanes, events)
    assert needed <= memory_bytes(SETTINGS, lanes + 1, events + 1)
    assert any("MiB" in f.message for f in plan(SETTINGS, lanes, 1_000, events, needed))
    assert not any("MiB" in f.message for f in plan(SETTINGS, lanes, 1_000, events, 2 * needed))


def facts(state: str = "Stable", protocol: str = "ours", lanes: tuple[int, ...] = (0, 1, 2)) -> GroupFacts:
    members = [GroupMember("worker", "/127.0.0.1", lanes)] if state == "Stable" else []
    return GroupFacts("g", state, "consumer", protocol if members else "", members)


def test_a_healthy_group_has_no_findings():
    """All lanes are owned; or nobody is a member and nothing waits; or the group is rebalancing."""
    for whole in (facts(), facts("Empty"), facts("Dead"), facts("PreparingRebalance")):
        assert not list(group.findings(whole, "ours", 3, 0))


def test_problems_of_a_group_are_found():
    """Lanes without an owner, another program and unread records (advice, as workers may be yet to start) are found."""
    [unowned] = group.findings(facts(lanes=(0, 2)), "ours", 4, 0)
    assert "1, 3" in unowned.message
    [foreign] = group.findings(facts(protocol="range"), "ours", 3, 0)
    assert "--group" in foreign.remedy
    [waiting] = group.findings(facts("Empty"), "ours", 3, 7)
    assert (waiting.advice, "7 records" in waiting.message) == (True, True)


@given(ahead=st.integers(-(10**7), 10**7), skew=st.integers(1, 3_600))
def test_clocks_may_differ_by_the_setting_and_no_more(ahead, skew):
    """Both directions count for a clock that can be read; a broker's shows only where it is ahead."""
    assert (clocks.server_check(ahead, skew).state is CheckState.ERROR) == (abs(ahead) > skew * 1000)
    newest = clocks.broker_check(10**12 + ahead, 10**12, "ours", skew)
    assert (newest.state is CheckState.ERROR) == (ahead > skew * 1000)


def test_a_check_is_as_bad_as_its_worst_finding():
    """Advice does not fail an examination; an error does, and so does a check that could not run."""
    advice, error = Finding("m", "r", advice=True), Finding("m", "r")
    assert Check("a", "w").state is CheckState.FINE
    assert Check("a", "w", [advice]).state is CheckState.ADVICE
    assert Check("a", "w", [advice, error]).state is CheckState.ERROR
    assert not found_wrong([Check("a", "w"), Check("a", "w", [advice])])
    assert found_wrong([Check("a", "w", [error])])
    assert found_wrong([Check("a", "", not_made="why")])
    assert as_json([Check("a", "", not_made="why")])["healthy"] is False


def published(*texts: str) -> RulesFacts:
    """Return tables with these sets, the newest first, and two publishers."""
    rows = [PublishedRules(n, text, "mia", "ticket 71", n) for n, text in enumerate(texts)]
    return RulesFacts(rows, [(7, "active"), (8, "suspended")])


def test_without_tables_the_shipped_rules_are_checked(tmp_path):
    """Rules that can't be evaluated yet are advice; an unreadable file is an error."""
    checks = rules_checks(SETTINGS, NO_TABLES)
    assert not found_wrong(checks)
    assert "none published" in checks[0].what
    assert [f.message.split()[0] for f in checks[0].findings] == ["UNKNOWN_PUBLISHER", "PUBLISHER_SUSPENDED"]
    assert found_wrong(
        rules_checks(SETTINGS.model_copy(update={"rules": str(tmp_path / "none.toml")}), NO_TABLES)
    )
    assert not any(c.findings for c in rules_checks(SETTINGS.model_copy(update={"rules": "none"}), NO_TABLES))


def test_without_clickhouse_only_files_are_checked(tmp_path):
    """Nothing is claimed of tables that were not read; lists are checked, and a rule file that can't be read is an error."""
    unread, lists = rules_checks(SETTINGS, None)
    assert unread.state is CheckState.NOT_MADE
    assert lists.what.startswith("lists ")
    missing = rules_checks(SETTINGS.model_copy(update={"rules": str(tmp_path / "none.toml")}), None)
    assert [check.state for check in missing] == [CheckState.ERROR, CheckState.NOT_MADE]


def test_a_published_set_that_is_refused_is_found():
    """The newest usable set is in force; where none is usable no worker starts; where `rules` names another, none is
    needed.
    """
    good = rule_set(UNKNOWN_PUBLISHER={}).text()
    assert [c.state for c in rules_checks(SETTINGS, published(good))] == [CheckState.FINE] * 3
    first, *rest = rules_checks(SETTINGS, published("mode = [", good))
    assert first.state is CheckState.ERROR
    assert "0000000000000001 by mia is in force" in first.what
    assert "2 publishers are known, 1 of them suspended" in rest[-1].what
    (alone,) = rules_checks(SETTINGS, published("mode = [", "x"))
    assert "no worker starts" in alone.what
    assert len(alone.findings) == 2
    default = SETTINGS.model_copy(update={"rules": "default"})
    assert not found_wrong(rules_checks(default, published("mode = [")))


def test_aged_lists_are_found():
    """An ageing list is advice, and an error when an enforced rule is not evaluated because of it."""
    facts = load_lists(today(), age_days_max=3_650).facts
    oldest = max(f.age_days(today()) for f in facts if f.age_days_max is not None)
    ageing = rules_checks(SETTINGS.model_copy(update={"list_age_days_max": oldest}), published())
    old = rules_checks(SETTINGS.model_copy(update={"list_age_days_max": 1}), published())
    assert any("days old" in f.message and f.advice for c in ageing for f in c.findings)
    assert any(f.message.startswith("UA_KNOWN_BOT (enforce) is not evaluated") for f in old[0].findings)
    assert found_wrong(old)


def test_a_port_that_is_taken_is_advice():
    """The port may be the worker's own."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        here = {"web_host": "127.0.0.1", "web_port": taken.getsockname()[1]}
        assert machine.web_port_check(SETTINGS.model_copy(update=here)).state is CheckState.ADVICE
    assert machine.web_port_check(SETTINGS.model_copy(update=here)).state is CheckState.FINE
