"""`adledger check`: what it prints, how it ends, and that its memory is bounded."""

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import zstandard

from adledger.pipeline.importing import contract
from adledger.pipeline.importing.contract import (
    KINDS_OF_PROBLEMS_MAX,
    ContractProblem,
    ProblemCounts,
    check_lines,
)
from adledger.pipeline.importing.lines import LineChunk
from adledger.pipeline.stages.malformed import MalformedReason
from adledger.schemas.wire import Malformed
from tests.support import wire_texts as wt
from tests.support.one_record import GOOD, raw, text_of
from tests.unit.test_cli import exit_of, run

CLICK = text_of(wt.CLICK)
BAD = text_of(wt.IMPRESSION, price_micros=1.5)
PACKED = {
    "plain": lambda data: data, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}  # fmt: skip


def written(folder: Path, *lines: bytes) -> str:
    path = folder / "events.ndjson"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def test_good_events_end_with_0(tmp_path):
    """Impressions and clicks pass; blank lines are no events."""
    path = written(tmp_path, GOOD, b"", b"  ", CLICK)
    ended = run("check", path)
    assert (ended.exit_code, ended.stdout) == (0, f"{path}: 2 events, 0 malformed\n")


def test_each_malformed_line_is_printed(tmp_path):
    """With its line, reason, field, what was found and what is allowed; then all are counted; the exit code is 1."""
    path = written(tmp_path, GOOD, BAD, b"", BAD, b"{")
    ended = run("check", path)
    assert ended.exit_code == 1
    allowed = "an integer from 0 to 1,000,000,000"
    printed = ended.stdout.splitlines()
    assert printed[0] == f"{path}:2: wrong type: price_micros is 1.5; allowed: {allowed}"
    assert printed[1].startswith(f"{path}:4: wrong type: ")
    assert printed[2].startswith(f"{path}:5: not json: expecting property name")
    assert re.fullmatch(rf" +2 +wrong_type +price_micros +2  {allowed}", printed[4]), printed[4]
    assert printed[-1] == f"{path}: 4 events, 3 malformed"


def test_json_has_what_the_text_has(tmp_path):
    """One object: counts by kind, and the first problems with line, reason, field, found, allowed and publisher."""
    path = written(tmp_path, BAD, GOOD, BAD)
    ended = run("check", path, "--json", "--limit", "1")
    assert ended.exit_code == 1
    allowed = "an integer from 0 to 1,000,000,000"
    kind = {
        "reason": "wrong_type",
        "field": "price_micros",
        "records": 2,
        "first_line": 1,
        "allowed": allowed,
    }
    problem = {
        "line": 1, "reason": "wrong_type", "field": "price_micros", "found": "1.5", "allowed": allowed,
        "publisher_id": wt.IMPRESSION["publisher_id"],
    }  # fmt: skip
    expected = {"file": path, "records": 3, "malformed": 2, "counts": [kind], "problems": [problem]}
    assert json.loads(ended.stdout) == expected


def test_the_limit_bounds_what_is_printed_not_what_is_counted(tmp_path):
    """The rest is counted, and stderr says which limit prints it."""
    path = written(tmp_path, *[BAD] * 5)
    ended = run("check", path, "--limit", "2")
    assert ended.stdout.count(f"{path}:") == 2 + 1
    assert "3 more are not printed; --limit 5 prints all" in ended.stderr
    assert ended.stdout.endswith("5 events, 5 malformed\n")
    assert run("check", path, "--limit", "5").stdout.count("wrong type: ") == 5


def test_a_topic_of_one_kind(tmp_path):
    """--only refuses the other kind's events, as its topic does."""
    path = written(tmp_path, GOOD, CLICK)
    assert run("check", path, "--only", "impression").stdout.startswith(
        f'{path}:2: wrong topic: event_type is "click"'
    )
    assert run("check", path, "--only", "click").stdout.startswith(
        f'{path}:1: wrong topic: event_type is "impression"'
    )


def test_an_event_far_ahead_of_now_is_malformed(tmp_path):
    """Log time is the present."""
    path = written(tmp_path, text_of(wt.IMPRESSION, event_time=time.time_ns() // 1_000_000 + 3_600_000))
    ended = run("check", path)
    assert ended.exit_code == 1
    assert "allowed: at most 5 minutes after its log time" in ended.stdout


def packed(how: str) -> bytes:
    """Return a file with a byte order mark and both line ends, whose second line is malformed."""
    return PACKED[how](b"\xef\xbb\xbf" + GOOD + b"\r\n" + BAD)


@pytest.mark.parametrize("how", PACKED)
def test_compressed_files_are_read(tmp_path, how):
    """Compressed as `import` reads it: the same lines, the same numbers."""
    path = tmp_path / "events"
    path.write_bytes(packed(how))
    ended = run("check", str(path))
    assert ended.exit_code == 1
    assert ended.stdout.startswith(f"{path}:2: wrong type: ")


@pytest.mark.parametrize("how", ["plain", "zstd"])
def test_stdin_is_read(how):
    """So is a pipe, compressed or not."""
    ended = subprocess.run(
        [sys.executable, "-m", "adledger", "check", "-"], input=packed(how), capture_output=True, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.startswith(b"stdin:2: wrong type: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "cannot read"), (gzip.compress(GOOD)[:-9], "damaged"), (b"PAR1" + bytes(90), "a Parquet file"),
     (b"[\n" + GOOD + b",\n" + GOOD + b"]", "one JSON array"), (b"{\n}", "JSON over several lines")],
    ids=["missing", "damaged", "foreign", "array", "pretty"],
)  # fmt: skip
def test_what_is_no_file_of_lines_ends_with_2(tmp_path, monkeypatch, capsys, data, message):
    """A file that can't be read, or has another layout, is a usage error with a remedy."""
    path = tmp_path / "events"
    if data is not None:
        path.write_bytes(data)
    assert exit_of(monkeypatch, "check", str(path)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "remedy: " in printed.err


TORN = GOOD[:40]


@pytest.mark.parametrize(
    ("lines", "found"),
    [([GOOD[:-1] + b",}"], "expecting property name"), ([GOOD[:-1] + b',"x":NaN}'], "NaN is not JSON"), ([b"{}"], "missing field"),
     ([TORN], "not json"), ([TORN, TORN], "not json"), ([GOOD[:GOOD.index(b",") + 1], GOOD[:-1]], "not json"),
     ([GOOD + b","] * 2, "extra data"), ([raw(wt.IMPRESSION, "page_url", rb'"\ud800"')], "half of a surrogate pair"),
     ([raw(wt.IMPRESSION, "site_id", b"1e400")], "site_id is 1e400")],
    ids=["comma", "NaN", "empty", "torn", "all torn", "torn after a comma", "commas between", "surrogate", "no double"],
)  # fmt: skip
def test_a_file_whose_only_lines_are_malformed_is_one_of_lines(tmp_path, lines, found):
    """A producer's first try, one event with one fault, is told the fault; it is no object over several lines."""
    path = written(tmp_path, *lines)
    ended = run("check", path)
    assert ended.exit_code == 1
    assert ended.stdout.startswith(f"{path}:1: ")
    assert found in ended.stdout.splitlines()[0]


@pytest.mark.parametrize(
    "text",
    [b'{"events":[\n{"a":1},\n{"a":2}]}', b'{"device":{\n"a":1}}', b'{"a":"}",\n"b":1}', b'{"a":[1,\n2]}'],
)
def test_an_object_over_several_lines_is_recognised(tmp_path, monkeypatch, capsys, text):
    """Wherever its lines break."""
    assert exit_of(monkeypatch, "check", written(tmp_path, text)) == 2
    assert "JSON over several lines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "stdin"), [(None, False), (orjson.OPT_INDENT_2, True)], ids=["array", "pretty, from stdin"]
)
def test_the_printed_command_checks_the_file(tmp_path, option, stdin):
    """The remedy for another layout, run as printed, checks every event of the file, or of what is piped into it."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    events = [orjson.loads(GOOD), orjson.loads(CLICK)]
    data = (
        orjson.dumps(events) if option is None else b"\n".join(orjson.dumps(e, option=option) for e in events)
    )
    path = tmp_path / "a producer's file"
    path.write_bytes(data)
    python = [sys.executable, "-m", "adledger", "check"]
    refused = subprocess.run(
        [*python, "-" if stdin else str(path)], input=data, capture_output=True, text=False, check=False
    )
    assert refused.returncode == 2
    (command,) = re.findall(r": (jq .*\| adledger check -)", refused.stderr.decode())
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("adledger", f"{sys.executable} -m adledger")],
        input=data, capture_output=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, b"stdin: 2 events, 0 malformed\n"), ran.stderr


def test_progress_of_a_pipe_counts_what_was_read(tmp_path):
    """A pipe has no size and no position: its progress is the bytes of its lines."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'wb').write(b'x\\n' * 100)"]):
        (lines,) = check_lines(pipe, "pipe", topic_kind=0, clock=lambda: wt.LOG_TIME)
    assert (lines.records, lines.bytes_done, lines.bytes_of) == (100, 200, 0)


def test_lines_are_checked_as_they_are_read(monkeypatch, tmp_path):
    """One chunk is in memory at a time: the next one is read when the problems of the last have been taken."""
    read = []

    def chunks(_):
        for number in range(3):
            read.append(number)
            yield LineChunk([GOOD, BAD], 1 + 2 * number, 0)

    monkeypatch.setattr(contract, "read_chunks", chunks)
    found = check_lines(tmp_path, "f", topic_kind=0, clock=lambda: wt.LOG_TIME)
    for number in range(3):
        lines = next(found)
        assert read == list(range(number + 1))
        assert [p.line for p in lines.problems] == [2 + 2 * number]


def test_counts_are_bounded():
    """However many keys are repeated, their kinds are bounded, and every line is counted."""
    counts = ProblemCounts()
    lines = 3 * KINDS_OF_PROBLEMS_MAX
    for line in range(lines):
        why = MalformedReason(Malformed.REPEATED_KEY, f"k{line}", "there 2 times", "each key once")
        counts.add(ContractProblem(line, why, None))
    assert len(counts.kinds) == KINDS_OF_PROBLEMS_MAX + 1
    assert sum(records for _, records, _ in counts.ordered()) == counts.malformed == lines
