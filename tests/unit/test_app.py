"""The parts of a worker on Kafka that need no Kafka: readiness, log lines, the agent, page paths, importing the app."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.control import logs
from adledger.pipeline.control.logs import FORMATS, OneLine
from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.control.readiness import STALL_SECONDS, Readiness
from adledger.pipeline.control.rollups_message import COLUMNS, encode, split
from adledger.pipeline.control.watch import PublisherWatch
from adledger.pipeline.lanes.events import LaneReleased, Phase, PhaseChanged
from adledger.pipeline.web.pages import (
    PUBLISHER_ID_MAX,
    SILENT_SECONDS_MAX,
    liveness_text,
    publisher_number,
    readiness_body,
)
from adledger.schemas.wire import EVENT_TIME_MS_MIN

AT_WORK = {Phase.RUNNING, Phase.IDLE}
ROW = {name: [1] for name in COLUMNS} | {"minute": [EVENT_TIME_MS_MIN // 1000]}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*Phase, None])), max_size=30))
def test_a_worker_is_ready_when_no_lane_is_halted(changes: list[tuple[int, Phase | None]]):
    """A worker is ready once it has joined and each lane that it owns runs or idles; a released lane does not count."""
    readiness, phases = Readiness(clock=lambda: 1e9), dict[int, Phase]()
    for lane, phase in changes:
        if phase is None:
            readiness.emit(LaneReleased(lane))
            phases.pop(lane, None)
        else:
            readiness.emit(PhaseChanged(lane, phase))
            phases[lane] = phase
    still = sorted(lane for lane, phase in phases.items() if phase not in AT_WORK)
    ready, body = readiness_body(joined=True, readiness=readiness, silent_seconds=0)
    assert ready == (not still)
    assert [lane["lane"] for lane in body["stalled"]] == still
    assert not readiness_body(joined=False, readiness=readiness, silent_seconds=0)[0]


def test_a_worker_without_brokers_is_live_and_not_ready():
    """A restart would not bring the brokers back, so /livez stays 200 and says why; /readyz says since when."""
    short, long = SILENT_SECONDS_MAX, SILENT_SECONDS_MAX + 20
    assert liveness_text(short) == "ok\n"
    assert "no Kafka broker has answered for 35 s" in liveness_text(long)
    for seconds in (short, long):
        ready, body = readiness_body(joined=True, readiness=Readiness(), silent_seconds=seconds)
        assert (ready, body["brokers_silent_seconds"]) == ((True, 0) if seconds == short else (False, 35))


def test_since_is_when_a_phase_began():
    """A phase that is reported again keeps its start and has the newest detail."""
    times = iter([100.0, 200.0, 300.0, 400.0])
    readiness = Readiness(clock=lambda: next(times))
    readiness.emit(PhaseChanged(7, Phase.WAITING, "first"))
    readiness.emit(PhaseChanged(7, Phase.WAITING, "second"))
    [lane] = readiness.lanes()
    assert (lane.since, lane.detail) == (100.0, "second")
    readiness.emit(PhaseChanged(7, Phase.IN_DOUBT, "batch 3"))
    assert readiness.lanes()[0].since == 200.0


def test_a_lane_that_completes_no_batch_makes_the_worker_unready():
    """A running lane that has completed nothing for STALL_SECONDS makes the worker unready; an idle one does not."""
    now = [0.0]
    readiness = Readiness(clock=lambda: now[0])
    readiness.emit(PhaseChanged(0, Phase.RUNNING))
    readiness.emit(PhaseChanged(1, Phase.IDLE))
    now[0] = STALL_SECONDS
    assert not readiness.stalled()
    now[0] += 1
    assert [lane.lane for lane in readiness.stalled()] == [0]


@given(st.text(), st.text())
def test_a_record_is_one_line(message: str, argument: str):
    """Every log record is one line, and its message reads back from that line."""
    record = logging.LogRecord("adledger.x", logging.WARNING, "f", 1, "%s: %s", (message, argument), None)
    line = OneLine().format(record)
    assert len(line.splitlines()) == 1
    found = re.fullmatch(r'ts=\S+Z level=warning logger=adledger\.x msg=(".*")', line)
    assert found is not None
    assert json.loads(found[1]) == f"{message}: {argument}".strip()


@given(st.text(), st.sampled_from(["adledger.worker", "aiokafka.group", "x y"]), st.booleans())
def test_a_record_is_one_json_object(message: str, logger: str, failed: bool):
    """With log_format = json every line parses, has the keys of logfmt in their order, and the same values."""
    try:
        int("x" + message)
    except ValueError:
        trouble = sys.exc_info() if failed else None
    record = logging.LogRecord(logger, logging.ERROR, "f", 1, "%s", (message,), trouble)
    line = FORMATS["json"]().format(record)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    found = json.loads(line)
    plain = FORMATS["logfmt"]().format(record)
    assert list(found) == re.findall(r"(?:^| )(ts|level|logger|msg)=", plain.partition(' msg="')[0] + " msg=")
    assert plain == f"ts={found['ts']} level=error logger={logger} msg={json.dumps(found['msg'])}"
    assert found["msg"].startswith(message.strip())


def test_every_line_of_a_file_is_json(tmp_path: Path):
    """Whatever logs, at any level, with a traceback or breaks in its text: each line is an object with the same keys."""
    file = tmp_path / "worker.log"
    before = logging.root.handlers[:], logging.root.level
    try:
        logs.set_up("DEBUG", file, "json")
        logging.getLogger("adledger.worker").info("lanes taken: %s;\nnow owned", "1,2")
        logging.getLogger("somebody.else").warning("caf\u00e9 \u2028 %s", '"')
        try:
            int("no\nnumber")
        except ValueError:
            logging.getLogger("adledger.app").exception("failed")
        logging.root.handlers[0].close()
    finally:
        logging.root.handlers[:], logging.root.level = before
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert {tuple(line) for line in lines} == {("ts", "level", "logger", "msg")}
    assert "Traceback (most recent call last):\n" in lines[-1]["msg"]


@given(st.one_of(st.none(), st.binary(max_size=64)))
def test_an_unreadable_message_is_counted(message: bytes | None):
    """The agent never raises: an unreadable message is counted, and the next one is processed."""
    watch = PublisherWatch(PublisherMonitor(), clock=lambda: 0.0)
    watch.take(message)
    assert (watch.unreadable, watch.monitor.counts.messages) == (1, 0)
    [good] = split("e", 0, 0, EVENT_TIME_MS_MIN, ROW)
    watch.take(encode(good))
    assert (watch.unreadable, watch.monitor.counts.messages) == (1, 1)
    assert watch.live(1)["read_since"].endswith("Z")


@given(st.one_of(st.integers(-5, PUBLISHER_ID_MAX + 5).map(str), st.text(max_size=12)))
def test_a_publisher_is_a_number(text: str):
    """The path is a publisher where it is the decimal of 0..2^32-1, and nothing else is."""
    number = publisher_number(text)
    plain = re.fullmatch(r"[0-9]{1,10}", text) is not None and int(text) <= PUBLISHER_ID_MAX
    assert number == (int(text) if plain else None)


def python(code: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_app_reads_and_starts_nothing(tmp_path: Path):
    """Under invalid settings the import succeeds and the first use of `app` is refused; no folder is created."""
    wrong = {"ADLEDGER_SOURCE": "nonsense"}
    assert python("import adledger.pipeline.app", tmp_path, **wrong).returncode == 0
    used = python("import adledger.pipeline.app; adledger.pipeline.app.app", tmp_path, **wrong)
    assert used.returncode
    assert "source = nonsense (from environment ADLEDGER_SOURCE)" in used.stderr
    right = python(
        "import adledger.pipeline.app as a; assert a.app is a.app; print(sorted(a.app.agents))",
        tmp_path,
        ADLEDGER_SOURCE="kafka://localhost:1",
    )
    assert right.stdout.strip() == "['publisher_monitor']", right.stderr
    assert not list(tmp_path.iterdir())


def test_the_app_is_for_kafka(tmp_path: Path):
    """A files: log has no Faust app, and the error says which source to name."""
    used = python(
        "import adledger.pipeline.app; adledger.pipeline.app.app", tmp_path, ADLEDGER_SOURCE="files:x"
    )
    assert "the Faust app works on Kafka" in used.stderr


@pytest.mark.parametrize(
    "option",
    [
        ("--without-web",),
        ("--loglevel", "warn"),
        ("--logfile", "x"),
        ("--log-format", "json"),
        ("--blocking-timeout", "3"),
    ],
)
def test_options_of_a_worker_on_kafka_are_refused_on_files(tmp_path: Path, option: tuple[str, ...]):
    """No option that is given is ignored."""
    from adledger.pipeline.cli.run import run

    values = {"--without-web": {"with_web": False}}.get(option[0]) or {
        option[0][2:].replace("-", "_"): option[-1]
    }
    from adledger.pipeline.errors import UsageError

    with pytest.raises(UsageError, match=f"{option[0][2:]}: options of a worker on Kafka"):
        run(source=f"files:{tmp_path}", clickhouse=f"embedded:{tmp_path}", **values)
