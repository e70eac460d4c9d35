"""The outcome of a commit's answers is never optimistic, and a refusal only where nothing can have been done."""

from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import CommitFenced, CommitRefused, CommitUnknown
from adledger.pipeline.log.kafka.commit_outcome import NAMES, CommitAnswer, outcome, remedy

ASKED = [("ad.clicks", 3), ("ad.impressions", 3)]
CODES = st.one_of(st.sampled_from(sorted(NAMES)), st.integers(-1, 200), st.none())


def verdict(code: int | None) -> CommitAnswer:
    return NAMES[code][1] if code in NAMES else CommitAnswer.UNKNOWN


@given(st.tuples(CODES, CODES))
def test_the_outcome_is_the_worst_that_the_answers_allow(codes):
    """It is None only if all accepted, refused or fenced only if no partition was or may have been accepted, else unknown.

    A code of None is a partition without an answer.
    """
    answers = {at: code for at, code in zip(ASKED, codes, strict=True) if code is not None}
    error = outcome("lane 3", ASKED, answers)
    verdicts = {verdict(code) for code in codes}
    if verdicts == {CommitAnswer.DONE}:
        expected = type(None)
    elif verdicts & {CommitAnswer.DONE, CommitAnswer.UNKNOWN}:
        expected = CommitUnknown
    else:
        expected = CommitRefused if verdicts == {CommitAnswer.NOT_DONE} else CommitFenced
    assert type(error) is expected
    if error is not None:
        assert "ad.clicks" in error.message
        assert "ad.impressions" in error.message
        assert error.remedy


@given(CODES)
def test_only_answers_before_any_write_are_refusals(code):
    """The list of refusals is closed: it has only answers that are sent before anything is written; all others are
    unknown.
    """
    before_writing = {3, 12, 14, 24, 28, 29, 30}
    fencing = {22, 25, 27, 82}
    error = outcome("lane 3", ASKED, dict.fromkeys(ASKED, code) if code is not None else {})
    kind = (
        type(None) if code == 0 else CommitRefused if code in before_writing else CommitFenced if code in fencing
        else CommitUnknown
    )  # fmt: skip
    assert type(error) is kind
    assert remedy(code or 0)
