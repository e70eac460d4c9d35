"""Debian's clickhouse-server, 18.16: a genuine clickhouse-server, with TLS ports of its own, and far too old for us."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adledger.pipeline.errors import AdledgerError

HOST = "127.0.0.1"
START_SECONDS_MAX = 30
LOOK_SECONDS = 0.05

_CONFIG = """<yandex>
<logger><level>warning</level><log>{folder}/server.log</log><errorlog>{folder}/server.err.log</errorlog></logger>
<http_port>{http}</http_port><tcp_port>{native}</tcp_port><interserver_http_port>{replicas}</interserver_http_port>
<listen_host>{host}</listen_host><path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
<users_config>{folder}/users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><timezone>UTC</timezone>
<mark_cache_size>67108864</mark_cache_size>{more}
</yandex>"""
_USERS = """<yandex><profiles><default/></profiles><quotas><default/></quotas><users><default><password>{password}</password>
<networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users></yandex>"""


class OldServerMissing(AdledgerError):  # noqa: N818
    """The server is not installed."""


@dataclass(frozen=True, slots=True)
class OldServer:
    """Where it listens."""

    host: str
    port: int
    http_port: int
    pid: int


@contextmanager
def old_server(folder: Path, *, more: str = "", password: str = "") -> Iterator[OldServer]:
    """Run the server on free ports; `more` is configuration (XML) besides ours, `password` the default user's.

    Raises OldServerMissing.
    """
    program = shutil.which("clickhouse-server") or shutil.which("clickhouse-server", path="/usr/sbin")
    if program is None:
        raise OldServerMissing("no clickhouse-server here", remedy="apt-get install clickhouse-server")
    native, http, replicas = _free_ports(3)
    (folder / "tmp").mkdir(parents=True)
    (folder / "users.xml").write_text(_USERS.format(password=password))
    config = folder / "config.xml"
    config.write_text(
        _CONFIG.format(folder=folder, native=native, http=http, replicas=replicas, host=HOST, more=more)
    )
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [program, f"--config-file={config}"],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        _wait(process, native, folder / "out")
        yield OldServer(HOST, native, http, process.pid)
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _wait(process: "subprocess.Popen[bytes]", port: int, out: Path) -> None:
    last = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < last:
        with suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        assert process.poll() is None, out.read_text("utf-8", "replace")
        time.sleep(LOOK_SECONDS)
    raise AssertionError(
        f"clickhouse-server did not listen within {START_SECONDS_MAX} s: {out.read_text('utf-8', 'replace')}"
    )
