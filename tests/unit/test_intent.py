"""A committed intent reads back unchanged and fits Kafka's limit, and nothing else is taken for one."""

import uuid
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.lanes.intent import METADATA_BYTES_MAX, VERSION, Intent
from adledger.sinks.sink import OffsetRange

U64_MAX, I64_MAX, U32_MAX = 2**64 - 1, 2**63 - 1, 2**32 - 1

INTENT = Intent(
    epoch="Zm9v,YmFy/16", lane=3, batch_no=7, ranges=(OffsetRange(0, 10, 20), OffsetRange(1, 5, 5)),
    cut_time=1_767_225_600_000, cut_topic=0, cut_offset=19, clock_before=1_767_225_500_000,
    clock_after=1_767_225_600_000, event_rows=9, dead_rows=1, judge_version=U64_MAX, send_by=1_767_225_605,
)  # fmt: skip

offsets = st.integers(0, I64_MAX)
intents = st.builds(
    Intent,
    epoch=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=90),
    lane=st.integers(0, 65_535),
    batch_no=st.integers(1, U64_MAX),
    ranges=st.lists(st.builds(OffsetRange, st.integers(0, 255), offsets, offsets), max_size=3).map(tuple),
    cut_time=offsets,
    cut_topic=st.integers(0, 255),
    cut_offset=st.integers(-1, I64_MAX),
    clock_before=offsets,
    clock_after=offsets,
    event_rows=offsets,
    dead_rows=offsets,
    judge_version=st.integers(0, U64_MAX),
    send_by=st.integers(0, U32_MAX),
    leader_epochs=st.lists(st.integers(-1, 2**31 - 1), max_size=3).map(tuple),
)


@given(intents)
def test_an_intent_survives_the_metadata(intent):
    """Every field survives the way through the commit metadata, at its extremes too."""
    assert Intent.parse(intent.text(), "here") == intent


def test_the_largest_intent_of_two_topics_fits():
    """Two topics with UUIDs for ids and every number at its longest stay far within Kafka's limit."""
    ids = ",".join(str(uuid.UUID(int=2**128 - 1)) for _ in range(2))
    largest = Intent(
        f"{ids}/65536", 65_535, U64_MAX, tuple(OffsetRange(255, I64_MAX, I64_MAX) for _ in range(2)),
        I64_MAX, 255, I64_MAX, I64_MAX, I64_MAX, I64_MAX, I64_MAX, U64_MAX, U32_MAX, leader_epochs=(2**31 - 1,) * 2,
    )  # fmt: skip
    assert len(largest.text().encode()) <= METADATA_BYTES_MAX // 4
    assert Intent.parse(largest.text(), "here") == largest


def test_an_intent_over_the_limit_is_never_committed():
    """A broker would refuse or truncate it, so it is a broken invariant before it is sent."""
    with pytest.raises(AssertionError, match="bytes"):
        replace(INTENT, epoch="x" * METADATA_BYTES_MAX).text()


def test_a_new_deadline_changes_nothing_else():
    """The same batch, intended again, differs in its deadline alone."""
    again = INTENT.with_send_by(INTENT.send_by + 10)
    assert again.send_by == INTENT.send_by + 10
    assert replace(again, send_by=INTENT.send_by) == INTENT


def test_an_older_intent_is_read():
    """The first release committed exactly this text; it decodes to this intent, and back to its text."""
    older = (
        '{"v":1,"epoch":"Zm9v,YmFy/16","lane":3,"batch":7,"ranges":[[0,10,20],[1,5,5]],'
        '"cut":[1767225600000,0,19],"clock":[1767225500000,1767225600000],"rows":[9,1],'
        '"judge":18446744073709551615,"send_by":1767225605}'
    )
    found = Intent.parse(older, "here")
    assert found == INTENT
    assert found.text() == older, "so that it is seen whether another worker committed meanwhile"


def test_what_this_release_commits_has_its_own_version():
    """Older releases, which know version 1, refuse it, whichever release intended the batch first."""
    older = Intent.parse(replace(INTENT, version=1).text(), "here")
    for intent in (INTENT, older.with_send_by(7)):
        assert orjson.loads(intent.text())["v"] == VERSION > 1


FOREIGN = ["", "null", "7", "[]", '"text"', "{}", "{", "\x00", "consumer-1", '{"v": 1}', "[1, 2, 3]"]
FIELDS = orjson.loads(INTENT.text())


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_metadata_stops_the_lane(text):
    """The error names another program's commit, its position and a remedy; nothing is guessed."""
    with pytest.raises(LaneHalted, match=r"lane 3, ad\.clicks") as stopped:
        Intent.parse(text, "lane 3, ad.clicks")
    assert stopped.value.remedy


@pytest.mark.parametrize("missing", FIELDS)
def test_an_intent_that_lacks_a_field_stops_the_lane(missing):
    """Each field is required."""
    text = orjson.dumps({name: value for name, value in FIELDS.items() if name != missing}).decode()
    with pytest.raises(LaneHalted) as stopped:
        Intent.parse(text, "here")
    assert stopped.value.remedy


@pytest.mark.parametrize("wrong", [{"ranges": [[0, 1]]}, {"cut": [1, 2]}, {"clock": 7}, {"rows": None}])
def test_an_intent_of_another_shape_stops_the_lane(wrong):
    """A field of another type makes it no intent of ours."""
    with pytest.raises(LaneHalted):
        Intent.parse(orjson.dumps({**FIELDS, **wrong}).decode(), "here")


@pytest.mark.parametrize("fields", [{**FIELDS, "v": VERSION + 1}, {"v": VERSION + 1, "of": "another shape"}])
def test_another_version_stops_the_lane(fields):
    """An intent of a newer release is distinguished from foreign metadata, whatever else it contains."""
    with pytest.raises(LaneHalted, match=f"version {VERSION + 1}") as stopped:
        Intent.parse(orjson.dumps(fields).decode(), "here")
    assert "release" in stopped.value.remedy
