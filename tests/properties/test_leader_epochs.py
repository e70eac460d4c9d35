"""A position's leader epoch is what a plain table of every offset would say, whatever was read in which order."""

from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.log.leader_epochs import CHANGES_MAX, NO_EPOCH, EpochRun, LeaderEpochs

Batches = list[EpochRun]


@st.composite
def logs(draw: st.DrawFn) -> Batches:
    """Record batches in offset order, with gaps where compaction left them; epochs never fall."""
    batches, offset, epoch = [], draw(st.integers(0, 3)), draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 12))):
        offset += draw(st.sampled_from((0, 0, 0, 1, 4)))
        epoch += draw(st.sampled_from((0, 0, 1, 3)))
        size = draw(st.integers(1, 5))
        batches.append(EpochRun(offset, offset + size, epoch))
        offset += size
    return batches


def plain(batches: Batches, position: int) -> int:
    """Return the epoch of the last batch that begins before a position."""
    return max((b.epoch for b in batches if b.start < position), default=NO_EPOCH)


def fetched(batches: Batches, position: int, count: int) -> Batches:
    """Return what a fetch at a position returns: at most this many batches, the first perhaps begun before it."""
    return [b for b in batches if b.end > position][:count]


@given(logs(), st.data())
def test_every_position_within_what_was_read_has_its_epoch(log, data):
    """Law: reading on from anywhere, in steps of any size, the epoch before each position passed is the log's."""
    epochs, end = LeaderEpochs(), log[-1].end
    first = position = data.draw(st.integers(0, end - 1))
    while position < end:
        found = fetched(log, position, data.draw(st.integers(1, 3)))
        epochs.read(position, found)
        position = found[-1].end
        # before the first batch that was read nothing is known; a gap counts to the batch before it
        begins = fetched(log, first, 1)[0].start
        for at in range(end + 2):
            known = max(first, begins + 1) <= at <= position
            assert not known or epochs.before(at) == plain(log, at)
            assert known or epochs.before(at) in {NO_EPOCH, plain(log, at)}


@given(logs(), st.data())
def test_reading_again_changes_nothing_and_is_looked_up_from_there(log, data):
    """Law: a batch in doubt is read again, and then on from its end, in the middle of what was read, and its epoch is
    known.
    """
    epochs, end = LeaderEpochs(), log[-1].end
    epochs.read(0, log)
    again = data.draw(st.integers(log[0].start, end - 1))
    epochs.read(again, fetched(log, again, data.draw(st.integers(1, 3))))
    for at in range(max(again, log[0].start + 1), fetched(log, again, 1)[0].end + 1):
        assert epochs.before(at) == plain(log, at)


@given(logs(), st.data())
def test_what_is_read_again_replaces_what_was_read(log, data):
    """Law: where another leader's records came, the epoch is theirs from there on, and nothing beyond them is known."""
    epochs = LeaderEpochs()
    epochs.read(0, log)
    at = data.draw(st.sampled_from([b.start for b in log]))
    other = EpochRun(at, at + data.draw(st.integers(1, 9)), log[-1].epoch + 1)
    epochs.read(at, [other])
    before = [b for b in log if b.end <= at]
    for position in range(at + 1, other.end + 1):
        assert epochs.before(position) == other.epoch
    assert epochs.before(other.end + 1) == NO_EPOCH
    if before:
        assert epochs.before(before[-1].end) == before[-1].epoch


@given(st.integers(0, 50), st.integers(0, 9), logs())
def test_a_restart_knows_the_epoch_before_its_position_alone(position, epoch, log):
    """Law: what a ledger row says is known of its end, and joins what is read from there on."""
    epochs = LeaderEpochs(position, epoch)
    assert {epochs.before(at) for at in range(60) if at != position} == {NO_EPOCH}
    assert epochs.before(position) == epoch
    later = [EpochRun(b.start + position, b.end + position, b.epoch + epoch) for b in log]
    epochs.read(position, later)
    assert epochs.before(later[-1].end) == later[-1].epoch
    assert epochs.before(later[0].start + 1) == later[0].epoch
    if later[0].start > position:
        assert epochs.before(position + 1) == epoch, "the gap behind it counts to it"


def test_what_is_remembered_is_bounded():
    """The newest changes of the leader are kept; before them the epoch is unknown, and never a wrong one."""
    epochs = LeaderEpochs()
    runs = [EpochRun(i, i + 1, i) for i in range(3 * CHANGES_MAX)]
    for run in runs:
        epochs.read(run.start, [run])
    assert [epochs.before(run.end) for run in runs] == [
        NO_EPOCH if run.epoch < 2 * CHANGES_MAX else run.epoch for run in runs
    ]


def test_a_fetch_of_nothing_changes_nothing():
    """At the log's end nothing is learnt, and nothing is forgotten."""
    epochs = LeaderEpochs(7, 3)
    epochs.read(7, [])
    assert epochs.before(7) == 3
