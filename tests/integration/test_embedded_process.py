"""The embedded server as a process: one owner at a time, not outliving its owner, durable."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clickhouse_driver
import psutil
import pytest

from adledger.pipeline.errors import AdledgerError, SinkError
from adledger.sinks.embedded.launch import EmbeddedServer, find

ROOT = Path(__file__).resolve().parents[2]


def connect(server, **options) -> clickhouse_driver.Client:
    return clickhouse_driver.Client(server.host, port=server.port, **options)


def python(code: str, *arguments: object, **options) -> "subprocess.Popen[str]":
    """Run some code in a process."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


OWNER = """
import sys, threading
from pathlib import Path
from adledger.sinks.embedded.launch import EmbeddedServer
started = []
def start():
    started.append(EmbeddedServer.start(Path(sys.argv[1])))
if sys.argv[2] == "thread":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
print(started[0].pid, started[0].port, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("started_in", ["main", "thread"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_owner(tmp_path, end, started_in):
    """It ends however its owner dies, but not with a mere thread of its owner's."""
    owner = python(OWNER, tmp_path, started_in, stdin=subprocess.PIPE)
    pid, port = map(int, owner.stdout.readline().split())
    server = psutil.Process(pid)
    with clickhouse_driver.Client("127.0.0.1", port=port) as client:
        assert client.execute("SELECT 1") == [(1,)]
    owner.send_signal(end)
    owner.wait()
    server.wait(timeout=60)
    with EmbeddedServer.start(tmp_path) as again, connect(again) as client:
        assert client.execute("SELECT 1") == [(1,)]
    for pipe in (owner.stdin, owner.stdout, owner.stderr):
        pipe.close()


def test_a_new_owner_may_come_at_once(tmp_path):
    """A server whose owner was killed exits, and the next one waits for that."""
    owner = python(OWNER, tmp_path, "main", stdin=subprocess.PIPE)
    pid, _ = map(int, owner.stdout.readline().split())
    owner.kill()
    with EmbeddedServer.start(tmp_path) as again:
        assert again.pid != pid
    owner.communicate()


def test_a_second_owner_is_refused(tmp_path):
    """The error names the owner and a remedy; the first goes on."""
    with EmbeddedServer.start(tmp_path) as first:
        with pytest.raises(SinkError) as refused:
            EmbeddedServer.start(tmp_path)
        assert str(first.pid) in refused.value.message
        assert f"clickhouse://{first.host}:{first.port}/?http_port={first.http_port}" in refused.value.remedy
        assert first.alive()
        found = find(tmp_path)
        assert found is not None
        assert (found.pid, found.host, found.port, found.http_port) == (
            first.pid, first.host, first.port, first.http_port,
        )  # fmt: skip
        with connect(first) as client:
            assert client.execute("SELECT 1") == [(1,)]
    assert find(tmp_path) is None
    assert find(tmp_path / "nowhere") is None


@pytest.mark.parametrize("option", ["port", "http_port"])
def test_a_port_in_use_is_an_error_with_a_remedy(tmp_path, option):
    """No process is left running, and the folder is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(SinkError) as refused:
            EmbeddedServer.start(tmp_path, **{option: number})
        assert f"127.0.0.1:{number}" in refused.value.message
        assert f"--{option.replace('_', '-')}" in refused.value.remedy
    with EmbeddedServer.start(tmp_path, **{option: number}) as server:
        assert getattr(server, option) == number


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    """The error names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(AdledgerError, match="can't use") as refused:
        EmbeddedServer.start(tmp_path / "file")
    assert refused.value.remedy


def test_data_that_can_not_be_opened_is_an_error(tmp_path):
    """The message is the engine's, and no process is left."""
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        client.execute("CREATE DATABASE d")
    (tmp_path / "data/metadata/d.sql").write_text("rubbish")
    with pytest.raises(SinkError, match="can't open"):
        EmbeddedServer.start(tmp_path)


def test_a_restart_keeps_everything(tmp_path):
    """Databases (Atomic), tables and rows are kept, also in `default`."""
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        client.execute("CREATE DATABASE d")
        assert client.execute("SELECT engine FROM system.databases WHERE name = 'd'") == [("Atomic",)]
        for table in ("d.t", "default.t"):
            client.execute(f"CREATE TABLE {table} (a UInt8) ENGINE = MergeTree ORDER BY a")
            client.execute(f"INSERT INTO {table} VALUES", [(7,)])
    for _ in range(2):
        with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
            assert client.execute("SELECT a FROM d.t") == client.execute("SELECT a FROM t") == [(7,)]


def test_acknowledged_inserts_survive_kill_9(tmp_path):
    """Every insert that was answered OK is there, whole; the one under way is there whole or not at all."""
    server = EmbeddedServer.start(tmp_path)
    with connect(server) as client:
        client.execute(
            "CREATE TABLE t (n UInt32, k UInt32) ENGINE = MergeTree ORDER BY n "
            "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
        )
    answered = []
    enough = threading.Event()

    def insert():
        with contextlib.suppress(Exception), connect(server) as own:
            for n in range(10_000):
                own.execute("INSERT INTO t VALUES", [(n, k) for k in range(100)])
                answered.append(n)
                if n == 20:
                    enough.set()

    thread = threading.Thread(target=insert)
    thread.start()
    assert enough.wait(60)
    os.kill(server.pid, signal.SIGKILL)
    thread.join()
    assert server.wait(60) == -signal.SIGKILL
    assert not server.alive()
    server.stop()
    with EmbeddedServer.start(tmp_path) as again, connect(again) as client:
        rows = client.execute("SELECT n, count(), uniqExact(k) FROM t GROUP BY n ORDER BY n")
    assert [n for n, _, _ in rows][: len(answered)] == answered
    assert len(rows) <= len(answered) + 1
    assert {(count, different) for _, count, different in rows} == {(100, 100)}


def test_it_finishes_running_queries_before_it_ends(tmp_path):
    """After SIGTERM a query in the engine is answered, then the process exits with 0."""
    server = EmbeddedServer.start(tmp_path)
    with connect(server) as a, connect(server) as b, ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            a.execute,
            "SELECT sum(sleepEachRow(0.1)) FROM numbers(10) SETTINGS max_block_size = 1",
            query_id="last",
        )
        while not b.execute("SELECT 1 FROM system.processes WHERE query_id = 'last' AND elapsed > 0"):
            pass
        os.kill(server.pid, signal.SIGTERM)
        assert running.result() == [(0,)]
        assert server.wait(60) == 0
    server.stop()


def test_ctrl_c_is_for_its_owner(tmp_path):
    """The terminal's interrupt goes to a process group, and the server is in another than its owner."""
    with EmbeddedServer.start(tmp_path) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)


def test_its_log_says_what_it_is_for(tmp_path):
    """The log says that it is for demos and tests."""
    with EmbeddedServer.start(tmp_path):
        assert "for demos and tests" in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_interrupted(tmp_path, end):
    """`adledger clickhouse serve` prints how to connect, answers, and ends with exit code 0."""
    command = [
        sys.executable,
        "-m",
        "adledger",
        "clickhouse",
        "serve",
        str(tmp_path),
        "--port",
        "0",
        "--http-port",
        "0",
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stderr.readline() for _ in range(5)]
        found = find(tmp_path)
        assert found is not None
        assert found.pid == process.pid
        assert "for demos and tests" in lines[0]
        for hint in (
            f"clickhouse-client --host 127.0.0.1 --port {found.port}",
            f":{found.http_port}/?query=",
            "adledger query",
        ):
            assert hint in "".join(lines)
        with connect(found) as client:
            assert client.execute("SELECT 1") == [(1,)]
        process.send_signal(end)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_serve_refuses_a_folder_that_is_served(tmp_path):
    """Exit code 1, with the cause and the remedy on stderr."""
    with EmbeddedServer.start(tmp_path) as server:
        command = [
            sys.executable,
            "-m",
            "adledger",
            "clickhouse",
            "serve",
            str(tmp_path),
            "--port",
            "0",
            "--http-port",
            "0",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"process {server.pid}" in done.stderr
        assert "remedy:" in done.stderr


def test_the_first_line_is_for_machines(tmp_path):
    """`python -m adledger.sinks.embedded` prints in JSON where it listens, or why it can't."""
    command = [
        sys.executable,
        "-m",
        "adledger.sinks.embedded",
        str(tmp_path),
        "--port",
        "0",
        "--http-port",
        "0",
        "--owner-pipe",
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        listening = json.loads(process.stdout.readline())
        assert listening["pid"] == process.pid
        second = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert set(json.loads(second.stdout)) == {"error", "remedy"}
        process.stdin.close()
        assert process.wait(60) == 0
