"""What `adledger doctor` and the start find in topics' settings, on brokers of any release."""

from typing import Any

import pytest

from adledger.pipeline.log.kafka_admin.metadata import TopicFacts
from adledger.pipeline.log.kafka_admin.rights import NOT_REPORTED, Principal, Role
from adledger.pipeline.log.kafka_admin.topic_checks import ClusterFacts, event_topic_configs, findings
from adledger.pipeline.settings import Settings

SINCE_3_6, BEFORE_3_6 = "message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"
UNBOUNDED, DAY = str(2**63 - 1), "86400000"
EVENTS = "ad.events"
VALUES: dict[str, Any] = {"source": "kafka://k:9092", "topics": (EVENTS,), "log_time": "record"}
SETTINGS = Settings(**VALUES)


def reported(**changes: str | None) -> dict[str, str]:
    """Return a fitting topic's settings as brokers report them; None leaves one out, _ is a dot."""
    made = event_topic_configs(SETTINGS, 3) | {"retention.bytes": "-1", "max.message.bytes": "1048588"}
    changed: dict[str, Any] = {**made, **{name.replace("_", "."): value for name, value in changes.items()}}
    return {name: value for name, value in changed.items() if value is not None}


def found(config: dict[str, str]) -> list[str]:
    """Return the findings about the event topic."""
    event, rollups = (
        TopicFacts(name, 0, "AAAAAAAAAAAAAAAAAAAAAQ", (1,), 3, NOT_REPORTED)
        for name in (EVENTS, "ad.rollups")
    )
    facts = ClusterFacts(
        "k:9092",
        3,
        [event],
        rollups,
        {EVENTS: config},
        {"offsets.retention.minutes": "10080"},
        Principal("k:9092", "User:me"),
        {},
    )
    return [str(finding) for finding in findings(facts, SETTINGS, Role.WORKER)]


@pytest.mark.parametrize("name", [SINCE_3_6, BEFORE_3_6])
def test_the_bound_of_a_records_age_has_two_names(name: str) -> None:
    """An import needs none. Kafka renamed the setting in 3.6, and each release reports its own."""
    assert not found({**reported(), name: UNBOUNDED})
    [finding] = found({**reported(), name: DAY})
    assert f"{name} = {DAY}" in finding
    assert f"--add-config {name}={UNBOUNDED}" in finding


def test_the_older_bound_counts_beside_the_newer_one() -> None:
    """Kafka 3.6 to 3.9 have both, and apply the older one as long as the newer has its default."""
    [finding] = found({**reported(), SINCE_3_6: UNBOUNDED, BEFORE_3_6: DAY})
    assert f"{BEFORE_3_6} = {DAY}" in finding
    assert f"--add-config {BEFORE_3_6}={UNBOUNDED}" in finding
    assert not found({**reported(), SINCE_3_6: UNBOUNDED, BEFORE_3_6: UNBOUNDED})


@pytest.mark.parametrize("name", sorted(event_topic_configs(SETTINGS, 3)))
def test_a_setting_that_brokers_do_not_report_is_named(name: str) -> None:
    """As some compatible services leave settings out. It is advice: the worker may start, and the rest is checked."""
    [finding] = found(reported(**{name: None}))
    assert f"don't report {name}" in finding
    [_, other] = found(reported(**{name: None, "retention.bytes": "1"}))
    assert "retention.bytes = 1" in other


def test_settings_that_fit_need_no_finding() -> None:
    """Those with which topics are created."""
    assert not found(reported())
