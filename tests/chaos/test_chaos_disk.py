"""A full disk, by whatever means the machine permits: inserts are refused while it is full, and accepted again after."""

import subprocess
import sys
from pathlib import Path

import pytest
from clickhouse_driver.errors import ServerException

from adledger.loadtest.lab.disk import Disk
from adledger.loadtest.lab.waiting import until
from adledger.pipeline.addresses import ServerAddress
from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer

NOT_ENOUGH_SPACE = 243


@pytest.mark.parametrize("may_mount", [True, False])
def test_inserts_are_refused_until_there_is_room(
    may_mount: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mounted file system where mounting is permitted, and without one, the server reports a full disk."""
    if not may_mount:
        refused = subprocess.CompletedProcess([], 1, b"", b"")
        monkeypatch.setattr("adledger.loadtest.lab.disk.subprocess.run", lambda *_, **__: refused)
    disk = Disk(tmp_path / "disk")
    try:
        with EmbeddedServer.start(disk.folder / "data") as server:
            address = ServerAddress(server.host, server.port, server.http_port)
            client = connect(address)
            client.execute("CREATE DATABASE d")
            for table in PROTOCOL_TABLES:
                client.execute(f"CREATE TABLE d.{table} (x UInt64) ENGINE = MergeTree ORDER BY x")
            client.execute("INSERT INTO d.events SELECT 1")
            disk.fill(address, "d")
            with pytest.raises(ServerException) as full:
                client.execute("INSERT INTO d.events SELECT 2")
            assert full.value.code == NOT_ENOUGH_SPACE
            disk.free(address, "d")
            client.execute("INSERT INTO d.events SELECT 3")
            assert client.execute("SELECT groupArray(x) FROM (SELECT x FROM d.events ORDER BY x)") == [
                ([1, 3],)
            ]
            client.disconnect()
    finally:
        disk.close()


_FILL_AND_SAY = """
import sys, time
from pathlib import Path
from adledger.loadtest.lab.disk import Disk
disk = Disk(Path(sys.argv[1]))
(disk.folder / "something").write_text("there")
print(disk.how, flush=True)
time.sleep(600)
"""


def test_a_killed_run_leaves_no_file_system_mounted(tmp_path: Path) -> None:
    """It is unmounted however the mounting process ends, kill -9 included."""
    folder = tmp_path / "disk"
    with subprocess.Popen(
        [sys.executable, "-c", _FILL_AND_SAY, str(folder)], stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline()
        owner.kill()
    until(lambda: not folder.is_mount(), "the unmounting", 30)
