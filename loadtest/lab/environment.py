"""The environment of a run: machine and versions, as texts and numbers."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from adledger import __version__
from adledger.loadtest.lab.servers import Servers
from adledger.pipeline.settings import cores
from adledger.sinks.connection import connect

PACKAGES = (
    "aiokafka",
    "chdb-core",
    "clickhouse-driver",
    "faust-streaming",
    "hdrhistogram",
    "numba",
    "numpy",
    "uvloop",
)


def environment(servers: Servers) -> dict[str, Any]:
    """Return machine, system and versions; `one_machine`: broker and ClickHouse share it with the load."""
    return {
        "adledger": __version__,
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "clickhouse": _clickhouse(servers),
        "one_machine": servers.broker is not None or servers.server is not None,
        **{name: _version(name) for name in PACKAGES},
    }


def cpu_name() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _clickhouse(servers: Servers) -> str:
    client = connect(servers.clickhouse)
    try:
        return str(client.execute("SELECT version()")[0][0])
    finally:
        client.disconnect()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
