"""Prometheus' own checker, which a laptop may lack."""

import shutil
import subprocess
from pathlib import Path

from adledger.pipeline.errors import AdledgerError
from tests.support.services import missing


def promtool(folder: Path, *arguments: str) -> None:
    """Run promtool, which must succeed; skip where it is missing, in CI fail."""
    if shutil.which("promtool") is None:
        missing(
            "promtool",
            AdledgerError("no promtool on the PATH", remedy="on Debian: apt-get install prometheus"),
        )
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
