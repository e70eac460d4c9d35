"""The journal of committed offsets: an acknowledged commit survives, a torn one never counts, damage is an error."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adledger.pipeline.errors import CommitFenced, LogError
from adledger.pipeline.log.files.offsets import JOURNAL_BYTES_MAX, OFFSETS, OffsetsJournal, read_state
from adledger.pipeline.log.source import Assignment, Committed

COMMITS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.dictionaries(
            st.integers(0, 1), st.builds(Committed, st.integers(0, 2**60), st.text(max_size=40)), min_size=1
        ),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / OFFSETS


def commit_all(path, commits):
    """Begin a generation and make the commits; return the lanes' states after each."""
    journal = OffsetsJournal(path, "m")
    states, state = [], {lane: dict(p) for lane, p in read_state(path).lanes.items()}
    for lane, positions in commits:
        journal.commit(Assignment(lane, journal.generation, "m"), positions)
        state = {**state, lane: {**state.get(lane, {}), **positions}}
        states.append(state)
    journal.close()
    return states


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=COMMITS)
def test_commits_are_read_back(path, commits):
    """The next member, or an observer, reads what a member committed."""
    path.unlink(missing_ok=True)
    states = commit_all(path, commits)
    assert read_state(path).lanes == states[-1]
    assert read_state(path).generation == 1
    again = OffsetsJournal(path, "n")
    assert again.generation == 2
    assert {lane: again.committed(lane) for lane in states[-1]} == states[-1]
    again.close()
    assert read_state(path).lanes == states[-1], "and rewriting the journal loses nothing"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=COMMITS, data=st.data())
def test_a_torn_commit_never_counts(path, commits, data):
    """Wherever the last line is cut or spoilt, the state is that of the commits before it."""
    path.unlink(missing_ok=True)
    states = [{}, *commit_all(path, commits)]
    whole = path.read_bytes()
    last = len(whole.split(b"\n")[-2]) + 1
    at = data.draw(st.integers(1, last))
    spoilt = whole[:-at] + (b"\0" * (at - 1) + b"\n" if 1 < at < last and data.draw(st.booleans()) else b"")
    path.write_bytes(spoilt)
    assert read_state(path).lanes == states[-2]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=COMMITS, at=st.floats(0, 1), bit=st.integers(0, 7))
def test_damage_is_an_error(path, commits, at, bit):
    """A flipped bit before the last line is an error that names the file, never another position."""
    path.unlink(missing_ok=True)
    commit_all(path, commits)
    data = bytearray(path.read_bytes())
    before_last = data.rindex(b"\n", 0, -1)
    data[int(at * (before_last - 1))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(LogError, match=OFFSETS):
        read_state(path)


def test_a_journal_does_not_grow_for_ever(path):
    """Beyond its limit the journal is rewritten with what is still current."""
    journal = OffsetsJournal(path, "m")
    text = "x" * 4_000
    for n in range(JOURNAL_BYTES_MAX // 8_000 + 50):
        journal.commit(Assignment(1, 1, "m"), {0: Committed(n, text), 1: Committed(n, text)})
    assert path.stat().st_size < JOURNAL_BYTES_MAX // 2
    assert journal.committed(1)[1].offset == n
    journal.close()
    assert read_state(path).lanes[1][0].offset == n


def test_a_closed_journal_is_fenced(path):
    """After close nothing can be committed."""
    journal = OffsetsJournal(path, "m")
    journal.close()
    with pytest.raises(CommitFenced):
        journal.commit(Assignment(0, 1, "m"), {0: Committed(1, "")})


def test_generations_survive(path):
    """Each journal's generation is one more than the last one's, whichever process wrote it."""
    for expected in range(1, 5):
        journal = OffsetsJournal(path, f"member {expected}")
        assert journal.generation == expected
        journal.close()
