"""The compose file is valid for Docker, and its commands exist."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from adledger.pipeline.cli.app import COMMANDS
from tests.support.promtool import promtool

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SCHEMA = Path(__file__).parents[1] / "data" / "compose-spec.json"
"""The schema of the Compose Specification, as published (Apache-2.0); Docker's client is not everywhere."""


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
    more = compose("--profile", "observability", "config", "--format", "json")
    assert set(json.loads(more.stdout)["services"]) == {*services, "prometheus", "grafana"}


def test_every_command_of_the_compose_file_exists():
    """Our own services run commands of `adledger`."""
    services = json.loads(compose("config", "--format", "json").stdout)["services"]
    for name, service in services.items():
        if service["image"] == "adledger":
            assert service["command"][0] in COMMANDS, name


def test_the_compose_file_follows_the_specification():
    """It is valid by the Compose Specification's own schema."""
    errors = jsonschema_rs.validator_for(json.loads(SCHEMA.read_bytes())).iter_errors(FILE)
    assert [f"{error.instance_path}: {error.message}" for error in errors] == []


def test_observability_is_a_profile_of_its_own():
    """`--profile observability` adds Prometheus and Grafana; without it they do not start, and every port is on the loopback."""
    optional = {
        name for name, service in FILE["services"].items() if service.get("profiles") == ["observability"]
    }
    assert optional == {"prometheus", "grafana"}
    assert not [n for n, s in FILE["services"].items() if n not in optional and s.get("profiles")]
    for service in FILE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert ":latest" not in service["image"]


def test_what_observability_mounts_is_there():
    """Each folder is in the repository, and each path that a configuration names is mounted."""
    mounted = {}
    for name in ("prometheus", "grafana"):
        for source, target, *mode in (v.split(":") for v in FILE["services"][name]["volumes"]):
            if source.startswith("."):
                assert (ROOT / source).is_dir()
                assert mode == ["ro"]
                mounted[target] = ROOT / source
            else:
                assert source in FILE["volumes"]
    provisioning = mounted["/etc/grafana/provisioning"]
    provider = yaml.safe_load((provisioning / "dashboards" / "adledger.yml").read_text("utf-8"))["providers"][
        0
    ]
    folder = mounted[provider["options"]["path"]]
    home = Path(FILE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.name in {path.name for path in folder.glob("*.json")}
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text("utf-8"))[
        "datasources"
    ]
    named = {
        p["datasource"]["uid"]
        for path in folder.glob("*.json")
        for p in json.loads(path.read_bytes())["panels"]
    }
    assert named == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_accepts_its_configuration():
    """promtool checks it with its rules; it scrapes the service and port of the workers' pages."""
    folder = ROOT / "docs" / "observability" / "prometheus"
    promtool(folder, "check", "config", "prometheus.yml")
    [job] = yaml.safe_load((folder / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    [found] = job["dns_sd_configs"]
    assert found["names"] == ["worker"]
    assert FILE["services"]["worker"]["ports"][0].endswith(f":{found['port']}")
