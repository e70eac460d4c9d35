"""Log lines about brokers appear once, then less and less often, and count what was left out."""

import logging

import pytest

from adledger.pipeline.log.kafka_admin.rate_limited_log import (
    REPEAT_SECONDS_MAX,
    REPEAT_SECONDS_MIN,
    RateLimitedLog,
)

HOUR = 3_600


class Clock:
    """A clock that is set by hand."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(clock):
    """What is written while aiokafka's log is taken over."""
    written: list[str] = []
    log = RateLimitedLog(written.append, clock=clock)
    log.open()
    yield written
    log.close()


def test_an_outage_of_an_hour_takes_few_lines(clock, lines):
    """aiokafka repeats three messages each second, with brokers in another order each time; few of them become lines."""
    aiokafka = logging.getLogger("aiokafka")
    for clock.seconds in range(HOUR):
        aiokafka.error("Unable connect to node with id %s: %s", clock.seconds % 3, "refused")
        aiokafka.error("Unable to update metadata from %s", [clock.seconds % 3, 1])
        aiokafka.error("Heartbeat send request failed: %s. Will retry.", "refused")
    assert lines[:3] == [
        "kafka: Unable connect to node with id 0: refused", "kafka: Unable to update metadata from [0, 1]",
        "kafka: Heartbeat send request failed: refused. Will retry.",
    ]  # fmt: skip
    assert len(lines) <= 3 * (HOUR / REPEAT_SECONDS_MAX + 8)
    assert "like it were left out" in lines[-1]


def test_after_a_quiet_time_a_line_is_new_again(clock, lines):
    """A message that has not occurred for long is written at once, and so are its first repeats."""
    aiokafka = logging.getLogger("aiokafka")
    for start in (0.0, HOUR):
        for clock.seconds in (start, start + 1, start + REPEAT_SECONDS_MIN):
            aiokafka.warning("gone")
    assert lines == ["kafka: gone", "kafka: gone (1 like it were left out)"] * 2
