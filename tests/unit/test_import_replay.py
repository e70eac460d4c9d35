"""Replays write each record when it is due, at the original timing or faster, and merge several files into one log."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing import import_into
from adledger.pipeline.importing.pacing import SPEED_MAX, TICK_SECONDS, Pacer, ReplayPace, ahead, speed_of
from adledger.pipeline.importing.records import ParsedRecord, unreadable
from adledger.pipeline.importing.run import PROBLEMS_MAX, open_log
from adledger.schemas.wire import FUTURE_MS_MAX, EventType
from tests.support.commands import adledger
from tests.support.files_log import read_log

STARTED = 1_767_225_600_000  # 2026-01-01T00:00:00Z
LATEST = STARTED + FUTURE_MS_MAX
THEN = STARTED - 86_400_000


class Clock:
    """A clock that moves only when somebody sleeps or the log is slow."""

    def __init__(self) -> None:
        self.now = STARTED / 1_000

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def event(event_id: str, event_time: int | None, **more: object) -> ParsedRecord:
    value = {
        "event_type": "impression",
        "event_id": event_id,
        "event_time": event_time,
        **dict.fromkeys(("publisher_id", "site_id", "campaign_id", "creative_id", "advertiser_id"), 1),
        "user_id": "u",
        "ip": "::1",
        "user_agent": "",
        "page_url": "",
        "price_micros": 1,
    }
    return ParsedRecord(EventType.IMPRESSION, b"u", event_time, orjson.dumps(value | more))


def replayed(records, pace, *, pieces=1, slow=0.0):
    """Return (seconds since the start, record) of each record, and the pacer."""
    clock, found = Clock(), []
    pacer = Pacer(pace, latest_ms=LATEST, clock=clock, sleep=clock.sleep)
    size = -(-len(records) // pieces) or 1
    for at in range(0, len(records), size):
        for part in pacer.due(records[at : at + size]):
            found += [(clock.now - STARTED / 1_000, record) for record in part]
            clock.now += slow
    return found, pacer.replayed()


times = st.lists(st.one_of(st.none(), st.integers(THEN, THEN + 600_000), st.just(LATEST + 1)), max_size=60)


@given(times, st.sampled_from([0.5, 1.0, 10.0, 1_000.0]), st.integers(1, 5))
def test_every_record_is_written_in_order_when_it_is_due(at, speed, pieces):
    """Each record is due at the end of the tick of its running time divided by the speed, however the file is chunked;
    order and bytes are unchanged.
    """
    records = [event(str(i), t) for i, t in enumerate(at)]
    found, replay = replayed(records, ReplayPace(speed=speed), pieces=pieces)
    assert [record for _, record in found] == records
    # The log's beginning is unknown until the first piece that holds a time.
    known = [t for t in at if t is not None and t <= LATEST]
    if len(known) == len(at) and at:
        running = [max(at[: i + 1]) for i in range(len(at))]
        for (seconds, _), t in zip(found, running, strict=True):
            due = (t - at[0]) / 1_000 / speed
            assert due - 1e-6 <= seconds <= due + TICK_SECONDS + 1e-6
        assert replay.log_seconds == pytest.approx((running[-1] - at[0]) / 1_000)
    assert replay.late_ms_max <= 1


def test_the_schedule_does_not_wait_for_the_log():
    """A log that stalls delays what follows by exactly the stall, and the rest is on schedule again."""
    records = [event(str(i), THEN + i * 1_000) for i in range(20)]
    clock, found = Clock(), []
    pacer = Pacer(ReplayPace(speed=1.0), latest_ms=LATEST, clock=clock, sleep=clock.sleep)
    for part in pacer.due(records):
        found += [clock.now - STARTED / 1_000] * len(part)
        clock.now += 4.5 if len(found) == 5 else 0.0
    on_time = [i + TICK_SECONDS for i in range(20)]
    assert found[:5] == pytest.approx(on_time[:5])
    assert found[5:9] == pytest.approx([4 + TICK_SECONDS + 4.5] * 4), "at once, as soon as the log takes them"
    assert found[9:] == pytest.approx(on_time[9:])
    assert pacer.replayed().late_ms_max == pytest.approx(3_500, abs=1)


@given(st.lists(st.integers(0, 600_000), min_size=1, max_size=40), st.sampled_from([1.0, 60.0]))
def test_as_of_now_moves_event_times_to_the_replay(at, speed):
    """Event times move to the time of the replay, compressed by the speed; nothing else of an event changes."""
    records = [event(str(i), THEN + t, price_micros=i, page_url="\u00e9") for i, t in enumerate(at)]
    found, _ = replayed(records, ReplayPace(speed=speed, as_of_now=True))
    for (_, record), before, t in zip(found, records, at, strict=True):
        after, was = orjson.loads(record.value), orjson.loads(before.value)
        assert after["event_time"] == record.event_time == round(STARTED + (t - at[0]) / speed)
        assert after | {"event_time": was["event_time"]} == was


def test_unreadable_lines_are_replayed_unchanged():
    """A bad line, one from the far future and one without a time keep their bytes and do not affect the pace."""
    odd = [unreadable(b"{", 2, "not JSON"), event("far", LATEST + 5), event("when", None)]
    found, replay = replayed(
        [event("a", THEN), *odd, event("b", THEN + 1_000)], ReplayPace(speed=1.0, as_of_now=True)
    )
    assert [record for _, record in found[1:4]] == odd
    assert replay.log_seconds == 1.0


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("10x", 10.0), ("0.5", 0.5), ("1_000", 1_000.0)])
def test_speeds_are_numbers(text, speed):
    """A speed is a number, with or without an x after it."""
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["", "fast", "0", "-1", "nan", "inf", str(SPEED_MAX * 2)])
def test_other_speeds_are_refused(text):
    """The error names the bounds."""
    with pytest.raises(UsageError) as refused:
        speed_of(text)
    assert "own timing" in refused.value.remedy


@given(st.lists(st.integers()), st.booleans())
def test_reading_ahead_changes_nothing(items, broken):
    """Reading ahead yields the same items in the same order, none lost, and raises the iterator's error at the same
    position.
    """

    def source():
        yield from items
        if broken:
            raise UsageError("damaged")

    found = []
    try:
        found += ahead(source())
        assert not broken
    except UsageError:
        assert broken
    if not broken:
        assert found == items


def wire(path: Path, events: list[tuple[str, int]]) -> Path:
    lines = [event(event_id, time).value for event_id, time in events]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def ids_in_order(log: Path) -> list[str]:
    records = [r for records in read_log(log).values() for r in records]
    return [orjson.loads(r[3])["event_id"] for r in records]


@given(st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=2, max_size=4))
def test_several_files_merge_into_one_log(tmp_path_factory, files):
    """Files are merged by the running maximum of event times; each file keeps its own order, and nothing is lost or
    repeated.
    """
    folder = tmp_path_factory.mktemp("merged")
    paths = [
        wire(folder / f"f{n}", [(f"{n}-{i}", THEN + t) for i, t in enumerate(at)])
        for n, at in enumerate(files)
    ]
    summary = import_into(paths, "wire", lambda: open_log(folder / "log", 1), started_at_ms=STARTED)
    ids = ids_in_order(folder / "log")
    assert summary.records == len(ids) == sum(map(len, files))
    running = {f"{n}-{i}": max(at[: i + 1]) for n, at in enumerate(files) for i in range(len(at))}
    assert all(running[a] <= running[b] for a, b in pairwise(ids))
    for n, at in enumerate(files):
        assert [i for i in ids if i.startswith(f"{n}-")] == [f"{n}-{i}" for i in range(len(at))]


@pytest.mark.parametrize("name", ["access-log", "open-bandit", "talkingdata"])
def test_files_with_numbered_rows_are_not_merged(tmp_path, name):
    """Rows of two files would get the same ids, and the second file's would count as duplicates, so the import is refused
    and creates nothing.
    """
    paths = [wire(tmp_path / n, [("a", THEN)]) for n in "ab"]
    with pytest.raises(UsageError, match="ids by row") as refused:
        import_into(paths, name, lambda: open_log(tmp_path / "log", 1), started_at_ms=STARTED)
    assert "--id-prefix" in refused.value.remedy
    assert not (tmp_path / "log").exists()


def test_unreadable_lines_are_reported(tmp_path):
    """The report names the first of them by file, line and reason, with a remedy; all are counted, and written unchanged."""
    first = tmp_path / "a.gz"
    first.write_bytes(gzip.compress(b"\n" + event("a", THEN).value + b"\n{broken\n" + b"[1]\n" * 9))
    second = wire(tmp_path / "b", [("b", THEN + 1)])
    ended = adledger(
        tmp_path / "run", "import", str(first), str(second), "--format", "wire", "--to", f"files:{tmp_path / 'log'}",
        "--unreadable-max", "90%",
    )  # fmt: skip
    assert ended.process.returncode == 0, ended.err
    assert "10 of them are unreadable lines" in ended.err
    assert f"{first}, line 3: not JSON" in ended.err
    assert f"{first}, line 4: event_type, user_id or ip" in ended.err
    assert ended.err.count(", line ") == PROBLEMS_MAX
    assert "remedy: fix these lines" in ended.err


def test_the_command_replays_at_its_pace(tmp_path):
    """60 s of events at 100 times their speed take at least 0.6 s, and each tick is in the files: log when it is due."""
    path = wire(tmp_path / "in", [(str(i), THEN + i * 1_000) for i in range(61)])
    arguments = ["import", str(path), "--format", "wire", "--to", f"files:{tmp_path / 'log'}"]
    ended = adledger(tmp_path / "run", *arguments, "--speed", "100x", "--as-of-now", "--json")
    assert ended.process.returncode == 0, ended.err
    summary = json.loads(ended.out)
    assert (summary["records"], summary["replay"]["log_seconds"]) == (61, 60.0)
    assert summary["replay"]["seconds"] >= 0.6
    stamps = [orjson.loads(r[3])["event_time"] for rs in read_log(tmp_path / "log").values() for r in rs]
    assert min(stamps) > STARTED, "as of now"
    refused = adledger(tmp_path / "refused", *arguments, "--as-of-now")
    assert refused.process.returncode == 2
    assert "--speed" in refused.err
