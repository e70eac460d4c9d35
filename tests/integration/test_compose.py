"""The compose file is valid for Docker, and its commands exist."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from adledger.pipeline.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]


def compose(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run compose's client, which needs no daemon for this; skip where version 2 is not installed."""
    for client in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(client[0]) is None:
            continue
        known = subprocess.run([*client, "version"], capture_output=True, text=True, check=False)
        if (
            known.returncode == 0 and "Docker Compose version" in known.stdout
        ):  # version 1 prints another form
            return subprocess.run(
                [*client, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
            )
    pytest.skip("no docker compose, version 2 or newer, on this machine")


def test_the_compose_file_is_valid():
    """`docker compose config` accepts it, its services are there, and there are two workers."""
    done = compose("config", "--format", "json")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == {"kafka", "clickhouse", "topics", "migrate", "worker", "load"}
    assert services["worker"]["deploy"]["replicas"] == 2


def test_every_command_of_the_compose_file_exists():
    """Our own services run commands of `adledger`."""
    services = json.loads(compose("config", "--format", "json").stdout)["services"]
    for name, service in services.items():
        if service["image"] == "adledger":
            assert service["command"][0] in COMMANDS, name
