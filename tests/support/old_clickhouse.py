"""Debian's clickhouse-server, 18.16: a real server of the native protocol, with an old dialect.

It lacks DateTime64, constraints, projections, skipping indices, codecs and many settings of later years, so its
tables here have the columns that the sink writes, and no more.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from clickhouse_driver import Client

from adledger.pipeline.errors import AdledgerError
from adledger.schemas.tables import PARTITION_CLOCKS, PROTOCOL_COLUMNS, TEXT_COLUMNS

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


def make_tables(client: Client, database: str) -> None:
    """Make the tables that the sink writes, from their stored types; times are integers here."""
    client.execute(f"CREATE DATABASE {database}")
    for table, columns in PROTOCOL_COLUMNS.items():
        clock, units_per_day = PARTITION_CLOCKS[table]
        client.execute(
            f"CREATE TABLE {database}.{table} ({_columns(columns)}) ENGINE = MergeTree "
            f"PARTITION BY intDiv({clock}, {units_per_day}) ORDER BY (lane, batch_no)"
        )
    for table, columns in TEXT_COLUMNS.items():
        key = next(iter(columns))
        client.execute(
            f"CREATE TABLE {database}.{table} ({_columns(columns)}) ENGINE = ReplacingMergeTree ORDER BY {key}"
        )


def _columns(columns: Mapping[str, str]) -> str:
    flat = {name: dtype for name, dtype in columns.items() if "." not in name}
    nested: dict[str, list[str]] = {}
    for name, dtype in columns.items():
        if "." in name:
            outer, inner = name.split(".")
            nested.setdefault(outer, []).append(f"{inner} {_type(dtype.strip('[]'))}")
    return ", ".join(
        [f"{name} {_type(dtype)}" for name, dtype in flat.items()]
        + [f"{outer} Nested({', '.join(inner)})" for outer, inner in nested.items()]
    )


def _type(dtype: str) -> str:
    if dtype.startswith("["):
        return f"Array({_type(dtype[1:-1])})"
    return "String" if dtype == "O" else f"{'U' if dtype[0] == 'u' else ''}Int{8 * int(dtype[1])}"


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
