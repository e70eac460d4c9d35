"""Files as users have them: compressed, with a byte order mark, with one endless line, through a pipe, or misnamed."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
import tracemalloc
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing import import_file, import_into
from adledger.pipeline.importing.examining import examine
from adledger.pipeline.importing.formats import FormatChoice
from adledger.pipeline.importing.lines import CHUNK_BYTES, LINE_BYTES_MAX, read_chunks
from adledger.pipeline.importing.ordering import SortedPieces
from adledger.pipeline.importing.reading import CachedPieces, Piece
from adledger.pipeline.importing.records import ParsedRecord, unreadable
from adledger.pipeline.importing.refusing import ImportRefused, Limits
from adledger.pipeline.importing.run import ImportOptions, import_files
from adledger.pipeline.importing.target import FilesTarget, TargetView, open_log
from adledger.pipeline.log.source import Topology
from adledger.schemas.wire import EventType
from tests.support.files_log import read_log
from tests.unit.test_importing import STARTED, event

PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "zstd in frames": lambda data: zstandard.compress(data[:99]) + zstandard.compress(data[99:]),
    "gzip in zstd": lambda data: zstandard.compress(gzip.compress(data)),
}


def values(log: Path) -> list[bytes]:
    return [r[3] for records in read_log(log).values() for r in records]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
def test_files_are_decompressed_by_content(tmp_path, packer, mark):
    """The file's name does not matter, nor does a byte order mark."""
    lines = [event(event_id=str(n)) for n in range(50)]
    path = tmp_path / "log.txt"
    path.write_bytes(PACKERS[packer](mark + b"\n".join(lines)))
    import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED)
    assert sorted(values(tmp_path / "log")) == sorted(lines)


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_a_truncated_archive_writes_nothing(tmp_path, packer):
    """A download that broke off is damaged, not a shorter log."""
    path = tmp_path / "input"
    path.write_bytes(PACKERS[packer](b"\n".join(event(event_id=str(n)) for n in range(9_999)))[:-9])
    with pytest.raises(UsageError, match="damaged compressed file"):
        import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED)
    assert not (tmp_path / "log").exists()


@given(
    st.lists(st.integers(0, 40).map(lambda n: b"x" * n), max_size=30), st.integers(1, 50), st.integers(1, 20)
)
def test_lines_do_not_depend_on_chunks(tmp_path_factory, lines, chunk_bytes, line_bytes_max):
    """Every line has its number and bytes, and a long one its beginning and its length, however the file is chunked."""
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(b"\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adledger.pipeline.importing.lines.CHUNK_BYTES", chunk_bytes)
        patch.setattr("adledger.pipeline.importing.lines.LINE_BYTES_MAX", line_bytes_max)
        found = []
        for chunk in read_chunks(path):
            assert chunk.first_line == len(found) + 1
            found += [(line, chunk.cut_from) for line in chunk.lines]
    expected = [(line[:line_bytes_max], len(line) if len(line) > line_bytes_max else 0) for line in lines]
    if expected and not expected[-1][0]:
        expected.pop()
    assert found == expected


def test_a_line_of_50_mb_is_one_dead_letter_in_bounded_memory(tmp_path):
    """Its beginning is kept and the lines around it are imported, with no more than a few chunks in memory."""
    path = tmp_path / "input"
    with path.open("wb") as file:
        file.write(event(event_id="before") + b"\n")
        for _ in range(50):
            file.write(b"y" * 1_000_000)
        file.write(b"\n" + b"\n".join(event(event_id=str(n)) for n in range(150)))
    tracemalloc.start()
    summary = import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (summary.records, summary.unreadable) == (152, 1)
    assert "line 2: 50,000,000 bytes long; its first 262,144 are kept" in summary.problems[0]
    assert b"y" * LINE_BYTES_MAX in values(tmp_path / "log")
    assert peak < 8 * CHUNK_BYTES


def packed_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("access.log")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (packed_tar(), "a tar archive"),
        (event().decode().encode("utf-16"), "text in UTF-16LE"),
        (event().decode().encode("utf-16-be"), "text in UTF-16BE"),
        (event().decode().encode("utf-16-le"), "text in UTF-16LE"),
        (event().decode().encode("utf-32"), "text in UTF-32LE"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive"),
        (b"PAR1" + bytes(50), "a Parquet file"),
        (b"\x04\x22\x4d\x18" + bytes(50), "compressed by lz4"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page"),
        (b'[\n  {"event_type": "impression"},\n  {}\n]', "one JSON array"),
        (b'{\n  "event_type": "impression"\n}\n', "JSON over several lines"),
        (b'{"id": 1, "name": "x"}\n' * 3, "JSON lines with the fields id, name"),
        (b"a;b;c\n1;2;3\n", "a table of 3 columns separated by semicolons (a, b, c)"),
        (b'126.1.2.3 - - [29/Nov/2026:10:00:01 +0000] "GET / HTTP/1.1" 200 1 "-" "curl"\n', "access-log: a web server's log"),
        (b"x 126.1.2.3 x [29/Nov/2026:10:00:01 +0000] GET /\n", "a web server's log with other fields than combined"),
        (b"ip,app,device,os,channel,click_time\n1,2,1,3,4,2017-11-10 04:00:00\n", "talkingdata: TalkingData"),
        ((Path(__file__).parents[1] / "data/imports/other_csv.csv").read_bytes(), "Avazu's click-through data"),
    ],
)  # fmt: skip
def test_a_file_of_another_format_is_refused(tmp_path, data, what):
    """It is refused before anything is written, with a guess at its format and a remedy."""
    path = tmp_path / "input"
    path.write_bytes(data)
    with pytest.raises(UsageError) as refused:
        import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED)
    assert what in refused.value.message
    assert refused.value.remedy
    assert "nothing was written" in refused.value.message
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("format_name", "data", "why"),
    [
        ("ipinyou", b"\t".join([b"x"] * 22), "22 columns, not 24 with tabs between them, season 1's"),
        ("ipinyou", b"bidid\ttimestamp\tipinyouid", "its header lacks logtype"),
        ("talkingdata", b"click_id,ip,app", "its header lacks device, os, channel, click_time"),
        ("open-bandit", b'"timestamp","item_id"', "lacks position, click, user_feature_0"),
        ("wire", event(event_time=STARTED // 1000), "(seconds)"),
        ("wire", event(price_micros=1.5), "wrong type: price_micros is 1.5; allowed: an integer from 0 to"),
        ("wire", event(page_url=...), "missing field: page_url is absent"),
    ],
)
def test_bad_first_lines_are_reported_with_field_and_value(tmp_path, format_name, data, why):
    """The error says what was found and what is expected."""
    path = tmp_path / "input"
    path.write_bytes(data)
    with pytest.raises(UsageError) as refused:
        import_file(path, format_name, tmp_path / "log", started_at_ms=STARTED)
    assert why in refused.value.message


def test_a_share_of_unreadable_lines_is_accepted_and_more_is_not(tmp_path):
    """1 of 100 is at the limit, 2 exceed it, and the printed option accepts them."""
    path = tmp_path / "input"
    for bad, accepted in ((1, True), (2, False)):
        path.write_bytes(b"\n".join([event()] * (100 - bad) + [b"{"] * bad))
        if accepted:
            assert import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED).unreadable == bad
            continue
        with pytest.raises(
            ImportRefused, match=r"2 of 100 lines \(2%\) can't be read, more than 1%"
        ) as refused:
            import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED)
        assert refused.value.exit_code == 1
        assert "--unreadable-max 2%" in refused.value.remedy
        options = ImportOptions(limits=Limits(unreadable_share_max=0.02))
        import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED, options=options)


def test_a_pipe_is_imported_whole(tmp_path):
    """A pipe can be read only once and is still examined first: nothing is written where a line would be lost."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = b"\n".join(event(event_id=str(n), event_time=STARTED - n) for n in range(500))

    def fed(content: bytes) -> threading.Thread:
        thread = threading.Thread(target=pipe.write_bytes, args=(content,))
        thread.start()
        return thread

    feeding = fed(data)
    assert import_file(pipe, "wire", tmp_path / "log", started_at_ms=STARTED).records == 500
    feeding.join()
    feeding = fed(data.replace(b"{", b"[") + b"\n")
    with pytest.raises(UsageError, match=r"pipe is not of the format wire"):
        import_file(pipe, "wire", tmp_path / "other", started_at_ms=STARTED)
    feeding.join()
    assert not (tmp_path / "other").exists()


@given(st.lists(st.none() | st.integers(STARTED - 10**9, STARTED), max_size=60), st.integers(1, 400))
def test_sorting_is_stable_and_bounded_by_runs(times, run_bytes):
    """Lines are sorted by time; equal times, and lines without one (which stay with the line before), keep the file's
    order, every time.
    """
    records = [
        unreadable(b"%d" % i, i, "bad")
        if time is None
        else ParsedRecord(EventType.IMPRESSION, b"u", time, b"%d" % i, line=i)
        for i, time in enumerate(times)
    ]
    pieces = [Piece(records[i : i + 7], {}, 0, 0) for i in range(0, len(records), 7)]
    at, keys = STARTED - 10**10, []
    for i, time in enumerate(times):
        at = at if time is None else max(at, time)
        keys.append((at if time is None else time, i))
    with pytest.MonkeyPatch.context() as patch, SortedPieces(pieces, run_bytes) as by_time:
        patch.setattr("adledger.pipeline.importing.ordering.RUNS_MAX", 3)
        for _ in range(2):
            found = [record for piece in by_time for record in piece.records]
            assert found == [records[i] for _, i in sorted(keys)]


def test_large_files_are_read_twice_and_small_ones_held():
    """Memory is bounded, and both ways give the same lines the second time."""
    reads = []

    class Source:
        def __iter__(self):
            reads.append(1)
            yield Piece([unreadable(b"x" * 100, 1, "bad")], {}, 0, 0)

    for bytes_max, expected in ((1_000, 1), (10, 2)):
        reads.clear()
        cached = CachedPieces(Source(), bytes_max)
        assert list(cached) == list(cached)
        assert len(reads) == expected


def test_errors_name_the_files(tmp_path):
    """For a line that would expire the error names its own file, and the file of the line that makes it late."""
    (tmp_path / "a").write_bytes(
        event(event_id="1", event_time=STARTED - 10**9) + b"\n" + event(event_id="2")
    )
    (tmp_path / "b").write_bytes(
        event(event_id="3") + b"\n" + event(event_id="4", event_time=STARTED - 10**9)
    )
    with pytest.raises(ImportRefused) as refused:
        import_files(
            [tmp_path / "a", tmp_path / "b"],
            FormatChoice(name="wire"),
            FilesTarget(tmp_path / "log", 1),
            started_at_ms=STARTED,
            options=ImportOptions(),
        )
    assert f"{tmp_path / 'b'}, line 2: " in refused.value.message


@given(st.lists(st.tuples(st.sampled_from("uv"), st.integers(0, 100)), max_size=40), st.integers(0, 60))
def test_exactly_those_that_expire_are_counted(records, lateness_ms):
    """The examination agrees with a plain count by the contract."""
    parsed = [ParsedRecord(EventType.IMPRESSION, user.encode(), STARTED + t, b"") for user, t in records]
    view = TargetView(Topology(("i",), (0,), ("",), 2), (-1, -1))
    found = examine(
        [Piece(parsed, {}, 0, 0)], view, latest_ms=STARTED + 1_000, lateness_ms=lateness_ms, brokers_stamp=False,
        progress=lambda *_: None,
    )  # fmt: skip
    lanes: dict[str, int] = {}
    expired = 0
    from adledger.pipeline.stages.plain_hashes import partition_of

    for user, t in records:
        lane = partition_of(user.encode(), 2)
        expired += lanes.get(lane, 0) - t > lateness_ms
        lanes[lane] = max(lanes.get(lane, 0), t)
    assert found.expiring.count == expired
    assert orjson.dumps(found.billable) == b"%d" % (len(records) - expired)


def test_events_that_brokers_would_stamp_too_late_are_refused(tmp_path):
    """Where log time is the present, the refusal names topics with log_time = record and a replay as remedies, and the
    log is closed.
    """
    path = tmp_path / "input"
    path.write_bytes(event() + b"\n" + event(event_id="old", event_time=STARTED - 25 * 3_600_000))
    options = ImportOptions(brokers_stamp=True)
    with pytest.raises(ImportRefused, match=r"1 of 2 lines would expire, .* behind the present") as refused:
        import_into(
            [path], "wire", lambda: open_log(tmp_path / "log", 1), started_at_ms=STARTED, options=options
        )
    assert "--set log_time=record" in refused.value.remedy
    assert "--as-of-now" in refused.value.remedy
    assert values(tmp_path / "log") == []
    kept = ImportOptions(brokers_stamp=True, limits=Limits(keep_expired=True))
    assert import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED, options=kept).records == 2
