"""ClickHouse 25.8, the oldest release that is supported: its engine (chDB 3.7.2) under our embedded server.

pip fetches it once, into the user's cache. That chDB lacks some of what our server uses, so an adapter in front of it has one
connection for all sessions, one query at a time, and no streaming. It shows that the SQL of migrations, inserts and
queries works on that release, and nothing about its wire or about concurrent queries.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adledger.pipeline.errors import AdledgerError
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.services import missing

REQUIREMENT = "chdb==3.7.2 --hash=sha256:c119f0830c12438a4e4b60b8370859ba50992e8b1b01a8c681e1c57eeb2dc82d\n"  # x86-64, glibc
FETCH_SECONDS_MAX = 300
ENGINE = "ADLEDGER_TEST_OLDEST_ENGINE"

_ADAPTER = """
import importlib, os, threading
from types import SimpleNamespace

__path__ = [os.path.join(os.environ["{engine}"], "chdb")]
real, the_one, lock = importlib.import_module("chdb._chdb"), [], threading.RLock()


class Result:
    def __init__(self, result):
        self.result = result

    def __getattr__(self, name):
        return getattr(self.result, name)

    def rows_written(self):
        return self.result.rows_read()

    def bytes_written(self):
        return self.result.bytes_read()


class Connection:
    def __init__(self, where):
        with lock:
            the_one or the_one.append(real.connect(where))

    def query(self, sql, output_format, params):
        assert not params, "it has no query parameters"
        with lock:
            return Result(the_one[0].query(sql, output_format))

    def send_query(self, sql, output_format):
        raise RuntimeError("{not_streamed}")

    def close(self):
        pass


_chdb = SimpleNamespace(connect=Connection)
"""


@contextmanager
def oldest_server(folder: Path) -> Iterator[EmbeddedServer]:
    """Run the server in a folder; where its engine can't be fetched, the test is skipped, or fails in CI."""
    from adledger.sinks.embedded.engine import NOT_STREAMED

    try:
        engine = _engine()
    except AdledgerError as error:
        missing("ClickHouse", error)
    adapter = folder / "adapter"
    (adapter / "chdb").mkdir(parents=True)
    text = _ADAPTER.replace("{engine}", ENGINE).replace("{not_streamed}", NOT_STREAMED)
    (adapter / "chdb" / "__init__.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENGINE, str(engine))
        patch.setenv("PYTHONPATH", f"{adapter}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        server = EmbeddedServer.start(folder / "server")
    with server:
        yield server


def _engine() -> Path:
    """Return the folder with the package, fetched by pip where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adledger"
    folder = cache / "chdb-3.7.2"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="chdb-") as scratch:
        wanted, target = Path(scratch, "requirements.txt"), Path(scratch, "target")
        wanted.write_text(REQUIREMENT)
        pip = (
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        )
        done = subprocess.run(
            [*pip, "--target", str(target), "-r", str(wanted)], capture_output=True, text=True,
            timeout=FETCH_SECONDS_MAX, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AdledgerError(
                f"pip could not fetch chdb 3.7.2: {done.stderr.strip().splitlines()[-1:]}",
                remedy="run these tests on Linux, x86-64, with a package index in reach",
            )
        target.rename(folder)
    return folder
