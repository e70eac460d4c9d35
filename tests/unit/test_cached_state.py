"""A lane's cached state is used exactly where it belongs: nobody else has written or intended anything since."""

from dataclasses import replace
from typing import Any, cast

import pytest

from adledger.pipeline.lanes.compute import Computed, LaneState
from adledger.pipeline.lanes.delivery import NO_INTENT, SentIntent
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.snapshot import Start
from adledger.pipeline.lanes.state import CachedState, ComputedBatch
from adledger.pipeline.log.leader_epochs import NO_EPOCH
from adledger.sinks.sink import OffsetRange

EPOCH, BATCH, CLOCK = "ids/2", 8, 70
RANGES = (OffsetRange(0, 10, 20), OffsetRange(1, 5, 5))
INTENT = Intent(
    EPOCH, 3, BATCH, RANGES, 80, 0, 19, CLOCK, 80, 10, 0, 1, 0, leader_epochs=(4, NO_EPOCH), malformed=0
)
"""As a lane makes it: its deadline is not known yet. The second topic has no record in it."""
SENT = INTENT.with_send_by(1_000, "me")
START = Start({0: 10, 1: 5}, BATCH, CLOCK, None)


def cached(computed: Intent | None = None) -> CachedState:
    rows = None if computed is None else ComputedBatch(computed, cast("Computed", object()))
    return CachedState(cast("LaneState", object()), EPOCH, BATCH, CLOCK, rows)


@pytest.mark.parametrize("pending", [None, SENT], ids=["no intent", "an intent"])
def test_a_state_between_batches_needs_the_same_batch_and_watermark(pending: Intent | None):
    """Where another worker has written a batch, the state lacks its ids."""
    start = replace(START, pending=pending)
    assert cached().begin(start, EPOCH, NO_INTENT) is start
    for other in ({"batch_no": BATCH + 1}, {"clock": CLOCK + 1}):
        assert cached().begin(replace(start, **cast("Any", other)), EPOCH, NO_INTENT) is None
    assert cached().begin(start, "ids/4", NO_INTENT) is None


@pytest.mark.parametrize("quiet", [True, False])
def test_a_computed_batch_goes_with_the_intent_that_was_sent_last(quiet: bool):
    """As committed, with whatever deadline, read back from the commit."""
    start = replace(START, pending=Intent.parse(SENT.text(), "here"))
    assert cached(INTENT).begin(start, EPOCH, SentIntent(SENT.text(), quiet)) is start


def test_a_computed_batch_whose_intent_was_not_accepted_is_intended():
    """The state has its records already, so the batch can't be cut again."""
    begins = cached(INTENT).begin(START, EPOCH, SentIntent(SENT.text()))
    assert begins == replace(START, pending=INTENT, committed=False)


@pytest.mark.parametrize(
    "committed",
    [
        INTENT.with_send_by(1_001, "me"),
        replace(SENT, cut_offset=18),
        replace(SENT, judge_version=2),
        replace(SENT, sender="other"),
    ],
    ids=["another deadline", "another cut", "another evaluator", "the same, sent by another"],
)
def test_another_workers_intent_drops_a_computed_batch(committed: Intent):
    """It may have written the batch otherwise, or be about to."""
    assert cached(INTENT).begin(replace(START, pending=committed), EPOCH, SentIntent(SENT.text())) is None
    assert cached(INTENT).begin(replace(START, pending=committed), EPOCH, NO_INTENT) is None


def test_this_workers_intent_of_another_cut_drops_a_computed_batch():
    """What it sent last is not what the state has."""
    other = replace(SENT, cut_offset=18)
    assert cached(INTENT).begin(replace(START, pending=other), EPOCH, SentIntent(other.text())) is None


@pytest.mark.parametrize("epochs", [(), (NO_EPOCH, NO_EPOCH), (NO_EPOCH, 4)])
def test_without_leader_epochs_a_computed_batch_is_dropped(epochs: tuple[int, ...]):
    """Nothing could tell whether the log still has the records that it was computed of."""
    intent = replace(INTENT, leader_epochs=epochs)
    assert cached(intent).begin(START, EPOCH, NO_INTENT) is None


def test_at_another_position_a_computed_batch_is_dropped():
    """It would leave records out, or bill them twice."""
    assert cached(INTENT).begin(replace(START, positions={0: 11, 1: 5}), EPOCH, NO_INTENT) is None
