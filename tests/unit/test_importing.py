"""Each line of an imported file becomes the record that events.md describes, in the file's order, with its log time."""

import bz2
import gzip
import hashlib
from importlib import resources
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.real_logs import expected as real_truth
from adledger.pipeline.errors import LogError, UsageError
from adledger.pipeline.importing import import_file
from adledger.pipeline.importing.formats import FORMATS, FormatChoice, reader_of
from adledger.pipeline.importing.lines import read_chunks
from adledger.pipeline.importing.refusing import Limits
from adledger.pipeline.importing.run import ImportInterrupted, ImportOptions
from adledger.pipeline.importing.stamping import LogClock
from adledger.pipeline.stages.plain_hashes import partition_of
from adledger.schemas.wire import EVENT_TIME_MS_MIN, FUTURE_MS_MAX
from tests.support.files_log import read_log

STARTED = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DATA = Path(str(resources.files("adledger.loadtest"))) / "real_logs"
ACCESS_LOG, OPEN_BANDIT = DATA / "apache_access.log.gz", DATA / "open_bandit_women.csv.gz"
HIT = b'10.0.0.%d - - [17/May/2015:10:05:%02d +0000] "GET / HTTP/1.1" 200 1 "-" "curl"'


def event(**changes: object) -> bytes:
    fields = {
        "event_type": "impression",
        "event_id": "e",
        "event_time": STARTED - 10_000,
        **dict.fromkeys(("publisher_id", "site_id", "campaign_id", "creative_id", "advertiser_id"), 1),
        "user_id": "u",
        "ip": "::1",
        "user_agent": "",
        "page_url": "",
        "price_micros": 1,
    }
    if changes.get("event_type") == "click":
        fields["impression_id"] = "i"
    return orjson.dumps({k: v for k, v in (fields | changes).items() if v is not ...})


ANY_FILE = ImportOptions(limits=Limits(unreadable_share_max=1.0, keep_expired=True))
"""What takes a file whatever it is: these tests are about single lines."""


def do_import(tmp_path: Path, data: bytes, format_name: str = "wire", **options: object):
    """Import bytes into tmp_path/log; return the summary and every record, by (topic, partition)."""
    options = {"options": ANY_FILE} | options
    path = tmp_path / "input"
    path.write_bytes(data)
    summary = import_file(path, format_name, tmp_path / "log", started_at_ms=STARTED, **options)
    return summary, read_log(tmp_path / "log")


# the real logs


def test_real_logs_are_mapped_as_an_independent_reader_maps_them(tmp_path):
    """Kind, publisher, minute and partition of every record equal those of a reader that shares no code with ours."""
    files = [("access-log", ACCESS_LOG), ("open-bandit", OPEN_BANDIT)]
    for format_name, path in files:
        import_file(path, format_name, tmp_path / "log", started_at_ms=STARTED)
    found = set()
    for (topic, lane), records in read_log(tmp_path / "log").items():
        for offset, _, key, value in records:
            fields = {} if key is None else orjson.loads(value)
            minute = fields.get("event_time", 0) // 60_000 * 60
            found.add((topic, lane, offset, fields.get("publisher_id", 0), minute))
    expected = real_truth.expected_of_files(files, 16, "USD")
    columns = [expected[name].tolist() for name in ("topic", "partition", "offset", "publisher_id", "minute")]
    assert found == set(zip(*columns, strict=True))
    assert len(found) == 20_046


def test_the_access_logs_one_bad_line(tmp_path):
    """Line 8,899 is kept unchanged in ad.impressions partition 0, without a key, at the lane's current log time."""
    summary = import_file(ACCESS_LOG, "access-log", tmp_path / "log", started_at_ms=STARTED)
    assert (summary.records, summary.unreadable) == (10_000, 1)
    log = read_log(tmp_path / "log")
    [bad] = [r for records in log.values() for r in records if r[2] is None]
    lines = gzip.decompress(ACCESS_LOG.read_bytes()).split(b"\n")
    assert bad in log[0, 0]
    assert bad[3] == lines[8_898]
    before = log[0, 0][log[0, 0].index(bad) - 1]
    assert bad[1] == before[1]


def test_open_bandit_rows(tmp_path):
    """A row fills every field that the mapping names, and a clicked row adds a click two seconds later."""
    header = b"timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3\n"
    rows = b"2019-11-24 00:00:00.123999+00:00,32,2,0,0.1,a,b,c,d\n2019-11-24 00:00:05.5+00:00,7,1,1,0.1,a,b,c,d\n"
    _, log = do_import(tmp_path, header + rows, "open-bandit")
    records = sorted((r[1], r[2], orjson.loads(r[3])) for records in log.values() for r in records)
    digest = hashlib.md5(b"a|b|c|d")
    times = [1_574_553_600_123, 1_574_553_605_500, 1_574_553_607_500]
    assert [(time, key) for time, key, _ in records] == [(t, digest.hexdigest().encode()) for t in times]
    first, second, click = (fields for _, _, fields in records)
    assert first == {
        "event_type": "impression", "event_id": "ob-1", "event_time": times[0],
        "publisher_id": 1, "site_id": 1, "campaign_id": 1, "creative_id": 32, "advertiser_id": 1, "placement_id": 2,
        "user_id": digest.hexdigest(), "ip": "126.{}.{}.{}".format(*digest.digest()[:3]),
        "user_agent": first["user_agent"], "page_url": "", "price_micros": 1_000_000,
    }  # fmt: skip
    assert first["user_agent"].startswith("Mozilla/5.0 (Windows NT")
    assert click == second | {
        "event_type": "click", "event_id": "ob-2-c", "event_time": times[2], "impression_id": "ob-2",
        "price_micros": 500_000,
    }  # fmt: skip


def test_access_log_lines(tmp_path):
    """A hit fills every field that the mapping names; ids count all lines of the file, blank ones included."""
    data = b'\n2001:db8::1 - frank [17/May/2015:12:05:03 +0200] "GET /a\\"b HTTP/1.1" 200 - "http://x/\\xe4" "A \\"B\\""\r\n'
    _, log = do_import(tmp_path, data, "access-log")
    [[(_, log_time, key, value)]] = [records for records in log.values() if records]
    assert (log_time, key) == (1_431_857_103_000, b"2001:db8::1")
    assert orjson.loads(value) == {
        "event_type": "impression", "event_id": "al-2", "event_time": log_time,
        "publisher_id": 2, "site_id": 2, "campaign_id": 2, "creative_id": 2, "advertiser_id": 2,
        "user_id": "", "ip": "2001:db8::1", "user_agent": 'A \\"B\\"', "page_url": "http://x/\\xe4",
        "price_micros": 1_000_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        b'10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "unclosed',
        b'10.0.0.1 - - [17/Foo/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "curl"',
        b'10.0.0.1 - - [31/Feb/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "curl"',
        b'10.0.0.1 - - [17/May/2015:24:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "curl"',
        b'10.0.0.1 - - [17/May/2015:10:05:03] "GET / HTTP/1.1" 200 1 "-" "curl"',
        b'10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "\xff"',
        b'10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1',
        b"nonsense",
        b"\x00\xff",
    ],
)
def test_lines_that_are_not_hits(tmp_path, line):
    """A line that is not a hit is kept unchanged, between its neighbours."""
    summary, log = do_import(tmp_path, b"\n".join([HIT % (1, 1), line, HIT % (1, 9)]), "access-log")
    assert (summary.records, summary.unreadable) == (3, 1)
    assert (line, None) in [(r[3], r[2]) for r in log[0, 0]]


@pytest.mark.parametrize(
    "row",
    [
        b"2019-11-24 00:00:00,32,2,0,a,b,c,d",
        b"yesterday,32,2,0,a,b,c,d",
        b"2019-11-24 00:00:00+00:00,x,2,0,a,b,c,d",
        b"2019-11-24 00:00:00+00:00,32,-2,0,a,b,c,d",
        b"2019-11-24 00:00:00+00:00,32,2,,a,b,c,d",
        b"2019-11-24 00:00:00+00:00,32,2,2,a,b,c,d",
        b"2019-11-24 00:00:00+00:00,32,2,0,a,b,c",
        b"2019-11-24 00:00:00+00:00,32,2,0,a,b,c,d,e",
        b"2019-11-24 00:00:00+00:00,32,2,0,a,b,c,\xff",
        b"\x00",
    ],
)
def test_unreadable_rows(tmp_path, row):
    """A row that does not match the header is kept unchanged, and counted as a row."""
    header = b"timestamp,item_id,position,click,user_feature_0,user_feature_1,user_feature_2,user_feature_3"
    good = b'2019-11-24 00:00:00+00:00,32,2,0,"a",b,c,d'
    summary, log = do_import(tmp_path, b"\n".join([header, row, good]), "open-bandit")
    assert (summary.records, summary.unreadable) == (2, 1)
    assert (row, None) in [(r[3], r[2]) for r in log[0, 0]]
    [other] = [orjson.loads(r[3]) for records in log.values() for r in records if r[2]]
    assert other["event_id"] == "ob-2"


# the wire


def test_wire_lines_are_written_unchanged(tmp_path):
    """Topic and key are those that the line names; its bytes are the value, white space included."""
    lines = [
        event(),
        event(event_type="click", user_id="\N{SNOWMAN}"),
        event(user_id=""),
        b'  {"ip":"x", "user_id":"\\u0061", "event_type":"impression"}\t',
        event(user_id="twice").replace(b"{", b'{"user_id":"once",'),
    ]
    expected = [
        (0, b"u"),
        (1, "\N{SNOWMAN}".encode()),
        (0, b"::1"),
        (0, b"a"),
        (0, b"twice"),
    ]
    summary, log = do_import(tmp_path, b"\n".join(lines) + b"\n")
    found = {r[3]: (topic, r[2], lane) for (topic, lane), records in log.items() for r in records}
    assert found == {
        line: (topic, key, partition_of(key, 16)) for line, (topic, key) in zip(lines, expected, strict=True)
    }
    assert (summary.records, summary.unreadable) == (5, 0)
    assert summary.by_topic == {"ad.impressions": 4, "ad.clicks": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"impression"',
        b"\xff\xff",
        b"[" * 2_000,
        b"\x00 a",
        b'{"event_type":NaN}',
        event(event_type=...),
        event(event_type="view"),
        event(event_type=[]),
        event(user_id=...),
        event(user_id=7),
        event(user_id=None),
        event(user_id=0),
        event(user_id=["a"]),
        event(user_id="", ip=...),
        event(user_id="", ip=7),
        event(user_id="", ip=""),
        event() + b"{}",
        event().replace(b'"u"', b'"\\ud800"'),
    ],
)
def test_wire_lines_without_topic_or_key(tmp_path, line):
    """A line whose topic and key can't be read goes to ad.impressions, partition 0, without a key."""
    summary, log = do_import(tmp_path, line)
    assert log[0, 0] == [(0, EVENT_TIME_MS_MIN, None, line)]
    assert (summary.records, summary.unreadable) == (1, 1)


def test_blank_lines_are_skipped(tmp_path):
    """Empty lines and lines of white space are skipped, CRLF ends a line, and the last line needs no line break."""
    summary, log = do_import(tmp_path, b"\n \t\n\r\n" + event() + b"\r\n\n" + event(event_id="f"))
    assert summary.records == 2
    assert [r[3] for records in log.values() for r in records] == [event(), event(event_id="f")]
    assert do_import(tmp_path / ".", b"")[0].records == 0


# log time


def test_log_time_is_the_lanes_running_maximum(tmp_path):
    """Log time runs over both topics of a lane in the file's order, and the next import continues it; lanes are
    independent.
    """
    t = STARTED - 1_000_000
    lines = [
        event(event_time=t + 5),
        event(event_time=t + 3, event_type="click"),
        event(event_time=t + 9, event_type="click"),
        event(event_time=t + 7),
        event(event_time=t + 1, user_id="v"),
    ]
    _, log = do_import(tmp_path, b"\n".join(lines), partitions=4)
    mine, other = partition_of(b"u", 4), partition_of(b"v", 4)
    assert mine != other
    assert [r[1] - t for r in log[0, mine]] == [5, 9]
    assert [r[1] - t for r in log[1, mine]] == [5, 9]
    assert [r[1] - t for r in log[0, other]] == [1]
    _, log = do_import(tmp_path, event(event_time=t))
    assert [r[1] - t for r in log[0, mine]] == [5, 9, 9], "the second import continues the first"


def test_log_times_of_odd_event_times(tmp_path):
    """Times as text count too; an unreadable or impossible time gets the lane's current log time and does not advance it."""
    t = STARTED - 1_000_000
    lines = [
        event(event_time="2025-12-31T23:00:00.5Z"),
        event(event_time=...),
        event(event_time="tomorrow"),
        event(event_time=True),
        event(event_time=1.5),
        event(event_time=STARTED + FUTURE_MS_MAX + 1),
        event(event_time=2**63),
        event(event_time=-5),
        event(event_time=t),
        event(event_time=t + 5, price_micros=-1),
        event(event_time=STARTED + FUTURE_MS_MAX),
        event(event_time=STARTED + FUTURE_MS_MAX + 1),
    ]
    _, log = do_import(tmp_path, b"\n".join(lines), partitions=1)
    at_first, later = -3_599_500, t - STARTED
    expected = [at_first] * 8 + [later, later, FUTURE_MS_MAX, 0]
    assert [r[1] - STARTED for r in log[0, 0]] == expected


def test_a_bad_line_at_the_head_of_an_empty_lane_gets_the_lanes_first_time(tmp_path):
    """Otherwise it would date from the year 2000, and hold back whatever waits for the slowest lane."""
    _, log = do_import(tmp_path, b"{broken\n" + event(event_time=STARTED - 5), partitions=1)
    assert [r[1] - STARTED for r in log[0, 0]] == [-5, -5]


LATEST = STARTED + FUTURE_MS_MAX


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.none() | st.integers(EVENT_TIME_MS_MIN, LATEST + FUTURE_MS_MAX))
    ),
    st.lists(st.just(-1) | st.integers(EVENT_TIME_MS_MIN, STARTED), min_size=3, max_size=3),
)
def test_the_rules_of_stamping(records, clocks):
    """Each record's log time follows the contract, restated here without any running state."""
    clock = LogClock(clocks, LATEST)
    stamps = [clock.stamp(lane, time) for lane, time in records]
    for i, (lane, time) in enumerate(records):
        good = [t for other, t in records[:i] if other == lane and t is not None and t <= LATEST]
        before = max([clocks[lane], EVENT_TIME_MS_MIN, *good])
        if time is None or time > LATEST:
            assert stamps[i] == min(before, STARTED)
        else:
            assert stamps[i] == max(time, before)


def test_a_second_import_repeats_every_record(tmp_path):
    """Importing the same file again writes the same records, so that their ids are found to be duplicates."""
    lines = b"\n".join(event(event_id=str(n), user_id=str(n)) for n in range(50))
    _, once = do_import(tmp_path, lines)
    _, twice = do_import(tmp_path, lines)
    for place, records in once.items():
        assert [r[2:] for r in twice[place]] == [r[2:] for r in records] * 2


# files and logs


def test_files_larger_than_a_chunk(tmp_path, monkeypatch):
    """However a file is chunked, its lines, their numbers and their order are the same."""
    lines = [b"%d" % n * (n % 7) for n in range(500)]
    (tmp_path / "plain").write_bytes(b"\n".join(lines))
    (tmp_path / "packed").write_bytes(gzip.compress(b"\n".join(lines)))
    (tmp_path / "tight").write_bytes(bz2.compress(b"\n".join(lines)))
    for chunk_bytes in (1, 7, 1_000, 1_000_000):
        monkeypatch.setattr("adledger.pipeline.importing.lines.CHUNK_BYTES", chunk_bytes)
        for name in ("plain", "packed", "tight"):
            found = []
            for chunk in read_chunks(tmp_path / name):
                assert chunk.first_line == len(found) + 1
                found += chunk.lines
            assert found == lines


def test_one_topic_for_both_kinds(tmp_path):
    """In a log with one combined topic, impressions and clicks are in it together."""
    lines = event() + b"\n" + event(event_type="click")
    summary, log = do_import(tmp_path, lines, topics=("ad.events",), partitions=1)
    assert summary.by_topic == {"ad.events": 2}
    assert [r[3] for r in log[0, 0]] == lines.split(b"\n")


def test_unusable_inputs_are_refused(tmp_path):
    """A missing file, a folder and damaged archives are named, and no log is created."""
    (tmp_path / "damaged").write_bytes(gzip.compress(event() * 99)[:-20])
    tight = bytearray(bz2.compress(event() * 99))
    (tmp_path / "cut").write_bytes(tight[:-20])
    tight[len(tight) // 2] ^= 255
    (tmp_path / "spoilt").write_bytes(tight)
    reasons = {
        "absent": "No such file",
        ".": "directory",
        "damaged": "damaged compressed",
        "cut": "damaged compressed",
        "spoilt": "damaged compressed",
    }
    for name, reason in reasons.items():
        with pytest.raises(UsageError, match=reason) as caught:
            import_file(tmp_path / name, "wire", tmp_path / "log", started_at_ms=STARTED)
        assert caught.value.remedy
        assert not (tmp_path / "log").exists()


def test_a_wrong_format_is_refused(tmp_path):
    """An unknown format, and a CSV that lacks columns (which are named), are refused, and no log is created."""
    with pytest.raises(UsageError, match="no format 'json'") as caught:
        do_import(tmp_path, b"", "json")
    assert all(name in caught.value.remedy for name in FORMATS)
    with pytest.raises(UsageError, match="lacks position, user_feature_3"):
        do_import(
            tmp_path, b"timestamp,item_id,click,user_feature_0,user_feature_1,user_feature_2\n", "open-bandit"
        )
    assert not (tmp_path / "log").exists()


def test_the_number_of_partitions_is_fixed(tmp_path):
    """A log has 16 partitions unless it is created with another number, and keeps them."""
    assert do_import(tmp_path, event())[0].partitions == 16
    assert do_import(tmp_path, event(), partitions=16)[0].records == 1
    with pytest.raises(UsageError, match="has 16 partitions, not 8"):
        do_import(tmp_path, event(), partitions=8)
    assert do_import(tmp_path, event())[0].partitions == 16, "and the refusal left it free"


def test_a_folder_of_other_files_is_refused(tmp_path):
    """Nothing is written among other files."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "photo.jpg").touch()
    with pytest.raises((LogError, UsageError), match=r"(not|nor) a log"):
        do_import(tmp_path, event())


def test_id_prefixes(tmp_path):
    """A prefix tells a second file's events from the first's; wire events have their own ids."""
    _, log = do_import(tmp_path, HIT % (1, 1), "access-log", id_prefix="june")
    [value] = [r[3] for records in log.values() for r in records]
    assert orjson.loads(value)["event_id"] == "june-1"
    with pytest.raises(UsageError, match="takes no id prefix"):
        reader_of(FormatChoice(name="wire", id_prefix="x"))
    for prefix in ("", "x" * 33, "a\nb", "\N{SNOWMAN}"):
        with pytest.raises(UsageError, match="is not a valid id prefix"):
            reader_of(FormatChoice(name="access-log", id_prefix=prefix))


def test_progress_reaches_the_end_of_the_file(tmp_path):
    """The progress that is reported ends with all of the file's bytes."""
    seen = []
    data = gzip.compress(b"\n".join(event() for _ in range(1_000)))
    do_import(tmp_path, data, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (len(data), len(data))


def test_an_interrupted_import_says_what_is_durable(tmp_path):
    """After Ctrl-C the error counts the records of this import that are certainly in the log, not those that were there
    before.
    """
    do_import(tmp_path, event() + b"\n")
    (tmp_path / "input").write_bytes((event(pad="p" * 4_000) + b"\n") * 20_000)
    chunks = []

    def interrupt_after_a_flush(done: int, of: int) -> None:
        chunks.append(done)
        if len(chunks) == 17:
            raise KeyboardInterrupt

    with pytest.raises(ImportInterrupted) as stopped:
        import_file(
            tmp_path / "input",
            "wire",
            tmp_path / "log",
            started_at_ms=STARTED,
            progress=interrupt_after_a_flush,
        )
    reported = int("".join(filter(str.isdigit, stopped.value.message)))
    written = sum(len(records) for records in read_log(tmp_path / "log").values())
    assert 0 < reported < written < 20_001
    assert stopped.value.exit_code == 130
