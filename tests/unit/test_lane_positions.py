"""`adledger lane skip --to`: which lanes may give up offsets, and which offsets can be named."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.cli.lane_positions import offsets_to, position_to_leave
from adledger.pipeline.control.owners import Owner
from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.pipeline.lanes.inspect import LaneLook
from adledger.pipeline.lanes.overrides import LanePosition
from adledger.pipeline.log.source import OffsetBounds

TOPICS = ("ad.impressions", "ad.clicks")
AT = LanePosition(lane=3, batch_no=9, epoch="e", positions={0: 40, 1: 7})
LOOK = LaneLook(
    lane=3, batch_no=8, clock=0, positions=AT.positions, bounds={0: OffsetBounds(0, 100), 1: OffsetBounds(0, 7)},
    pending=None, rows={}, trouble="the log was truncated", remedy="adledger lane skip 3", halt_reason=None,
    proposal=None, overridden=False, topics=TOPICS, next=AT, leftovers=(),
)  # fmt: skip


@pytest.mark.parametrize("phase", ["", "halted", "waiting"])
def test_a_lane_that_does_not_work_is_left_where_it_is(phase):
    """The position is the lane's own; a lane without an owner, or with one that does not answer, has it too."""
    assert position_to_leave(LOOK, Owner("host:1", phase=phase)) == AT
    assert position_to_leave(LOOK, None) == AT


@pytest.mark.parametrize("phase", ["running", "idle", "rebuilding", "in_doubt"])
def test_a_lane_that_works_gives_nothing_up(phase):
    """The error names the worker, and the remedy what would be needed."""
    with pytest.raises(AdledgerError, match=f"lane 3 is not halted: it is {phase} at host:1") as refused:
        position_to_leave(LOOK, Owner("host:1", phase=phase))
    assert "stop its worker" in refused.value.remedy


def test_another_reason_to_halt_comes_first():
    """A lane that can't begin has no position to leave; its own remedy is named."""
    with pytest.raises(
        AdledgerError, match="another reason, which comes first: the log was truncated"
    ) as refused:
        position_to_leave(replace(LOOK, next=None), None)
    assert refused.value.remedy == LOOK.remedy


@pytest.mark.parametrize(
    ("to", "found"),
    [
        (["ad.impressions=60"], {0: 60}),
        (["ad.impressions=end", "ad.clicks=7"], {0: 100, 1: 7}),
        (["ad.impressions=40", "ad.impressions=41"], {0: 41}),
    ],
)
def test_offsets_are_named_by_topic(to, found):
    """`end` is the log's end; of a topic that is named twice, the last counts."""
    assert offsets_to(LOOK, AT, to) == found


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (["ad.impressions"], "not TOPIC=OFFSET"),
        (["ad.impressions=-1"], "not TOPIC=OFFSET"),
        (["ad.other=60"], "not TOPIC=OFFSET"),
        (["ad.impressions=39"], "is at offset 40 of ad.impressions, and the log ends at 100"),
        (["ad.impressions=101"], "is at offset 40 of ad.impressions, and the log ends at 100"),
        (["ad.impressions=40", "ad.clicks=end"], "is there already, so nothing would be given up"),
    ],
)
def test_offsets_outside_the_log_are_refused(to, words):
    """What is read already, what the log does not have, and nothing at all can't be given up."""
    with pytest.raises(UsageError, match=words) as refused:
        offsets_to(LOOK, AT, to)
    assert refused.value.remedy


@pytest.mark.parametrize("flags", [[], ["--dry-run", "--execute"]])
def test_an_override_is_shown_or_written(flags):
    """Neither flag, and both, are a usage error, before anything is read."""
    with pytest.raises(UsageError, match="neither or both of --dry-run and --execute"):
        CliRunner().invoke(app, ["lane", "skip", "3", "--reason", "x", *flags], catch_exceptions=False)
