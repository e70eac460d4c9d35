"""ClickHouse's own server is fetched once for all processes, as the expected package or not at all, with a reason for a
failure.
"""

import base64
import hashlib
import os
import shutil
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adledger.loadtest.lab import clickhouse_library as library
from adledger.loadtest.lab.clickhouse_library import ClickHouseMissing, clickhouse_library

if sys.platform != "linux":
    pytest.skip("it is fetched for Linux alone", allow_module_level=True)

NPM = """#!/bin/sh
echo called >> {calls}
for last; do :; done
cp {package} "$last/package.tgz"
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that packs a small file as the library, and counts its calls in the file that is returned."""
    (tmp_path / "libchdb.so").write_bytes(b"library")
    package, calls = tmp_path / "it.tgz", tmp_path / "calls"
    with tarfile.open(package, "w:gz") as archive:
        archive.add(tmp_path / "libchdb.so", "package/libchdb.so")
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    monkeypatch.setattr(library, "INTEGRITY", f"sha512-{digest}")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "npm"
    script.write_text(NPM.format(calls=calls, package=package))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


def test_many_fetch_it_once(npm: Path) -> None:
    """A process that comes during the download waits for it, and a later one finds it."""
    with ThreadPoolExecutor(4) as threads:
        found = {call.result() for call in [threads.submit(clickhouse_library) for _ in range(8)]}
    (path,) = found
    assert path.read_bytes() == b"library"
    assert npm.read_text() == "called\n"
    assert [p.name for p in path.parents[1].iterdir() if p.is_dir()] == [path.parent.name], (
        "nothing half fetched"
    )


def test_another_package_is_refused(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What npm returns under this name and version is executed, so it must have the known digest."""
    monkeypatch.setattr(library, "INTEGRITY", "sha512-other")
    with pytest.raises(ClickHouseMissing, match="another"):
        clickhouse_library()
    assert npm.exists()


def test_without_npm_the_remedy_is_to_install_it(
    npm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tests are then skipped on a laptop, with this reason, and fail in CI."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ClickHouseMissing, match="no npm on the PATH") as missing:
        clickhouse_library()
    assert "npm" in missing.value.remedy
    assert not npm.exists()
