"""The package has one top-level name, and no module has two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["pipeline", "schemas", "sinks", "loadtest"])
def test_no_module_is_importable_under_two_names(folder):
    """In a checkout the root is on the path; a folder imported from there raises an error with the right package name."""
    tried = subprocess.run(
        [sys.executable, "-c", f"import {folder}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tried.returncode == 1
    assert f"this package is adledger.{folder}" in tried.stderr


def test_the_four_folders_are_the_package():
    """Each link of `adledger/` leads to the folder of its name."""
    links = {link.name: link.resolve() for link in (ROOT / "adledger").iterdir() if link.is_symlink()}
    assert links == {name: ROOT / name for name in ("pipeline", "schemas", "sinks", "loadtest")}
