"""Small files that were once billed wrongly or lost silently: each is read correctly, or refused with a remedy that
works.
"""

import re
import shlex
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.pipeline.importing.refusing import ImportRefused
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.schemas.wire import Malformed, currency_code
from tests.support.files_log import read_log

CASES = Path(__file__).parents[1] / "data" / "imports"
DAY_MS = 86_400_000


def run_import(log: Path, case: str | Path, format_name: str, *more: str) -> str:
    """Run the command and return its output. Raises the error that ends it."""
    ended = CliRunner().invoke(
        app, ["import", str(CASES / case), "--format", format_name, "--to", f"files:{log}", *more]
    )
    if ended.exception is not None:
        raise ended.exception
    return ended.output


def classified(log: Path, lateness_ms: int = DAY_MS) -> dict[str, int]:
    """Count the log's records by class as a worker would, one lane after the other, repeats separately."""
    found = {"billable": 0, "duplicate": 0, "expired": 0, "malformed": 0}
    lanes: dict[int, list] = {}
    for (topic, lane), records in read_log(log).items():
        lanes.setdefault(lane, []).extend((r[1], topic, r[0], r[2], r[3]) for r in records)
    for lane, records in lanes.items():
        context = DecodeContext(lane, 16, (1, 2), currency_code("USD"))
        watermark, seen = 0, {}
        for log_time, topic, _, key, value in sorted(records, key=lambda r: r[:3]):
            watermark = max(watermark, log_time)
            event = decode_plain(value, key, topic + 1, log_time, context)
            if isinstance(event, Malformed):
                found["malformed"] += 1
            elif event.id_hash in seen and watermark - seen[event.id_hash] <= lateness_ms:
                found["duplicate"] += 1
            else:
                seen[event.id_hash] = watermark
                late = watermark - event.event_time > lateness_ms
                found["expired" if late else "billable"] += 1
    return found


def clients(log: Path) -> set[str]:
    return {orjson.loads(r[3])["ip"] for records in read_log(log).values() for r in records}


def options_of(error: AdledgerError) -> list[list[str]]:
    """Return the options that a remedy prints, one list for each alternative."""
    ways = []
    for line in error.remedy.splitlines():
        words = shlex.split(line.replace(":", " : ").replace(" : ", ":"), posix=True) if "--" in line else []
        options = []
        for at, word in enumerate(words):
            if word in {"--sort", "--keep-expired"}:
                options.append(word)
            elif word in {"--not-after", "--set", "--unreadable-max", "--line-format", "--format"}:
                options += [word, words[at + 1].rstrip(",;.")]
        ways += [options] if options else []
    return ways


def test_a_time_in_microseconds_does_not_advance_the_watermark(tmp_path):
    """One line is malformed, reported with its unit; the 9 others are billable."""
    output = run_import(tmp_path / "log", "microseconds.ndjson", "wire", "--partitions", "1")
    assert classified(tmp_path / "log") == {"billable": 9, "duplicate": 0, "expired": 0, "malformed": 1}
    assert "line 4: out of range: event_time is 1764400003000000 (microseconds)" in output


def test_lines_after_a_far_future_line_are_refused_and_each_remedy_works(tmp_path):
    """Six lines would expire after line 4, so nothing is written, and each printed option does what it says."""
    case = ("future_time.ndjson", "wire", "--partitions", "1")
    with pytest.raises(ImportRefused) as refused:
        run_import(tmp_path / "log", *case)
    assert not (tmp_path / "log").exists()
    assert "6 of 10 lines would expire" in refused.value.message
    assert re.search(
        r"6 lines are more than 24 h behind .*future_time.ndjson, line 4\n", refused.value.message
    )
    assert refused.value.exit_code == 1
    ways = {way[0]: way for way in options_of(refused.value)}
    effects = {
        "--sort": {"billable": 10, "duplicate": 0, "expired": 0, "malformed": 0},
        "--not-after": {"billable": 9, "duplicate": 0, "expired": 0, "malformed": 1},
        "--keep-expired": {"billable": 4, "duplicate": 0, "expired": 6, "malformed": 0},
    }
    assert ways.keys() == effects.keys(), "720 hours are more than any setting"
    for name, way in ways.items():
        run_import(tmp_path / name, *case, *way)
        assert classified(tmp_path / name) == effects[name], name


def test_a_fixed_file_is_billed_after_a_broken_one_was_refused(tmp_path):
    """quote_broken.log has too many bad lines: nothing is written, and the printed remedy, to fix and import, bills all
    lines.
    """
    with pytest.raises(
        ImportRefused, match=r"1 of 15 lines \(6.67%\) can't be read, more than 1%"
    ) as refused:
        run_import(tmp_path / "log", "quote_broken.log", "access-log")
    assert "line 2: a quote is not closed" in refused.value.message
    assert "fix these lines in place" in refused.value.remedy
    run_import(tmp_path / "log", "quote_fixed.log", "access-log")
    assert classified(tmp_path / "log")["billable"] == 15


@pytest.mark.parametrize("partitions", ["1", "16"])
def test_a_fixed_line_is_billed_after_the_broken_file_was_written(tmp_path, partitions):
    """A line that is fixed after its broken file was written is never lost silently, and the printed settings bill it
    once.
    """
    with pytest.raises(ImportRefused) as refused:
        run_import(tmp_path / "log", "quote_broken.log", "access-log", "--partitions", partitions)
    [accept] = options_of(refused.value)
    output = run_import(
        tmp_path / "log", "quote_broken.log", "access-log", "--partitions", partitions, *accept
    )
    assert "import it again" in output
    before = classified(tmp_path / "log")
    assert before == {"billable": 14, "duplicate": 0, "expired": 0, "malformed": 1}
    with pytest.raises(ImportRefused) as late:
        run_import(tmp_path / "log", "quote_fixed.log", "access-log")
    assert ("nothing; 1 are not" in late.value.message) == (partitions == "1")
    [settings] = [way for way in options_of(late.value) if way[0] == "--set"]
    run_import(tmp_path / "log", "quote_fixed.log", "access-log", *settings)
    hours = dict(word.split("=") for word in settings if "=" in word)
    assert set(hours) == {"allowed_lateness_hours", "dedupe_window_hours"}
    lateness_ms = int(hours["allowed_lateness_hours"]) * 3_600_000
    after = classified(tmp_path / "log", lateness_ms)
    assert after == {"billable": 15, "duplicate": 14, "expired": 0, "malformed": 1}


def test_a_file_that_is_in_the_log_already_is_not_refused(tmp_path):
    """Every line of a second import would be too late or a duplicate, and none is lost, so the import goes through."""
    for _ in range(2):
        run_import(tmp_path / "log", "quote_fixed.log", "access-log", "--partitions", "1")
    assert classified(tmp_path / "log")["billable"] == 15


def test_two_addresses_before_the_time_are_refused(tmp_path):
    """A line with the server's address first is refused; with the line format that the remedy prints, the clients are the
    second addresses.
    """
    with pytest.raises(UsageError, match="two addresses before the time") as refused:
        run_import(tmp_path / "log", "server_ip_first.log", "access-log")
    assert not (tmp_path / "log").exists()
    [formats] = options_of(refused.value)
    run_import(tmp_path / "log", "server_ip_first.log", "access-log", *formats[-2:])
    assert clients(tmp_path / "log") == {f"126.1.2.{n}" for n in range(1, 6)}


@pytest.mark.parametrize(
    ("case", "client"), [("vhost_port.log", "126.1.2.7"), ("nginx_extra.log", "126.1.2.4"), ("bom.log", "126.1.2.3")]
)  # fmt: skip
def test_variants_of_combined_are_read(tmp_path, case, client):
    """A virtual host before the line, further fields after it, and a byte order mark at the start are read."""
    run_import(tmp_path / "log", case, "access-log")
    assert clients(tmp_path / "log") == {client}
    assert classified(tmp_path / "log")["billable"] == 1


def test_a_table_is_refused_as_a_wire_file(tmp_path):
    """It is refused before anything is written, with what it is; a dry run says the same."""
    for more in ((), ("--dry-run",)):
        with pytest.raises(UsageError, match="none of its first 2 lines is an event") as refused:
            run_import(tmp_path / "log", "other_csv.csv", "wire", *more)
        assert "a table of 6 columns separated by commas (id, click, hour" in refused.value.message
        assert not (tmp_path / "log").exists()


def test_dates_that_a_spreadsheet_changed_are_refused_whole(tmp_path):
    """The error names the column, what was found and what is expected."""
    with pytest.raises(UsageError) as refused:
        run_import(tmp_path / "log", "talkingdata_excel.csv", "talkingdata")
    assert "line 2: click_time is '11/6/2017 14:32', not like 2017-11-07 09:30:38" in refused.value.message
    assert "original file" in refused.value.remedy


def test_quoted_headers_are_read(tmp_path):
    """Headers are read as every CSV library writes them."""
    run_import(tmp_path / "log", "talkingdata_quoted.csv", "talkingdata")
    assert classified(tmp_path / "log")["billable"] == 1


def test_a_dry_run_previews_the_import_and_writes_nothing(tmp_path):
    """It shows counts, times and the first events; where the import would be refused, the refusal and its exit code too."""
    output = run_import(tmp_path / "log", "quote_fixed.log", "access-log", "--dry-run")
    assert "15 records would be written" in output
    assert "from 2026-11-20T10:00:00Z to 2026-11-22T14:00:00Z" in output
    assert '"ip":"126.1.2.0"' in output
    ended = CliRunner().invoke(
        app,
        ["import", str(CASES / "future_time.ndjson"), "--format", "wire", "--to", f"files:{tmp_path / 'log'}",
         "--partitions", "1", "--dry-run", "--json"],
    )  # fmt: skip
    assert orjson.loads(ended.stdout)["expiring"] == 6
    assert isinstance(ended.exception, ImportRefused)
    assert not (tmp_path / "log").exists()
