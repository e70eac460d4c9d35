"""The manifests of docs/kubernetes: valid for Kubernetes, and right about adledger's commands, pages, settings and times."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from adledger.pipeline.cli.app import COMMANDS
from adledger.pipeline.control.service import LEAVE_SECONDS_MAX
from adledger.pipeline.settings import Settings
from adledger.pipeline.settings_layers import load
from docs.observability.alerts import MEMORY_LIMIT_GIB

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDER = DOCS / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
MANIFESTS: dict[str, Any] = {
    n: yaml.safe_load((FOLDER / n).read_text("utf-8")) for n in KUSTOMIZATION["resources"]
}
[HPA] = (
    yaml.safe_load(text)
    for text in re.findall(r"```yaml\n(.*?)```", (DOCS / "kubernetes.md").read_text("utf-8"), re.DOTALL)
)
RELEASES = ("1.30", "1.37")
WORKERS, MIGRATE = MANIFESTS["workers.yaml"], MANIFESTS["migrate.yaml"]
[WORKER] = WORKERS["spec"]["template"]["spec"]["containers"]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.chdir(tmp_path)
    return load(config=FOLDER / "adledger.toml").settings


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", [*MANIFESTS, "HPA"])
def test_each_manifest_is_valid(name: str, release: str) -> None:
    """By the API's own schemas, strictly: an unknown or misspelt field fails."""
    kubernetes_validate.validate(MANIFESTS.get(name, HPA), release, strict=True)


def test_the_kustomization_has_every_file() -> None:
    """No manifest or settings file of the folder is left out."""
    generated = [file for each in KUSTOMIZATION["configMapGenerator"] for file in each["files"]]
    listed = {*KUSTOMIZATION["resources"], *generated, "kustomization.yaml"}
    assert listed == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("workload", [WORKERS, MIGRATE], ids=["workers", "migrate"])
def test_pods_are_confined(workload: dict) -> None:
    """They run as the image's user, without privileges, tokens, service variables, or secrets in the environment."""
    pod = workload["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "ADLEDGER_... of a Service would be refused as a setting"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"--uid {pod['securityContext']['runAsUser']}" in (DOCS.parent / "Dockerfile").read_text("utf-8")
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= container["resources"].keys()
        assert container["args"][0] in COMMANDS
        assert [e["name"] for e in container["env"]] == ["ADLEDGER_CONFIG"]
        assert container["image"] == KUSTOMIZATION["images"][0]["name"]
    secrets = [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
    maps = [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v]
    assert secrets == ["adledger"]
    assert maps == [KUSTOMIZATION["configMapGenerator"][0]["name"]]


def test_the_settings_are_accepted_and_name_mounted_files(settings: Settings) -> None:
    """adledger reads the file; each password is a file of the secret that the page makes."""
    text = (FOLDER / "adledger.toml").read_text("utf-8")
    paths = [Path(found) for found in re.findall(r"/run/secrets/[\w/-]+", text.split("\n", 1)[1])]
    mounts = {m["name"]: m["mountPath"] for m in WORKER["volumeMounts"]}
    page = (DOCS / "kubernetes.md").read_text("utf-8")
    assert len(paths) == 2
    for path in paths:
        assert str(path.parent) == mounts["secrets"]
        assert f"--from-file={path.name}" in page
    assert WORKER["env"][0]["value"] == f"{mounts['settings']}/adledger.toml"
    assert settings.web_host == "0.0.0.0"


def test_probes_and_ports_are_those_of_the_pages(settings: Settings) -> None:
    """Every probe asks a page of the worker's port; policy, service and annotations name the same port."""
    [port] = WORKER["ports"]
    assert port["containerPort"] == settings.web_port
    paths = {kind: WORKER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: get["path"] for kind, get in paths.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {get["port"] for get in paths.values()} == {port["name"]}
    annotations = WORKERS["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(settings.web_port)
    [ingress] = MANIFESTS["network-policy.yaml"]["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": settings.web_port}]
    [served] = MANIFESTS["pages.yaml"]["spec"]["ports"]
    assert (served["port"], served["targetPort"]) == (settings.web_port, port["name"])


def test_selectors_select_the_pods() -> None:
    """Budget, service, deployment and spread select workers; the policy selects every pod of ours."""
    labels = WORKERS["spec"]["template"]["metadata"]["labels"]
    [spread] = WORKERS["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert WORKERS["spec"]["selector"]["matchLabels"] == labels
    assert spread["labelSelector"]["matchLabels"] == labels
    assert MANIFESTS["disruption-budget.yaml"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["pages.yaml"]["spec"]["selector"] == labels
    every = MANIFESTS["network-policy.yaml"]["spec"]["podSelector"]["matchLabels"].items()
    assert every <= labels.items()
    assert every <= MIGRATE["spec"]["template"]["metadata"]["labels"].items()
    assert HPA["spec"]["scaleTargetRef"]["name"] == WORKERS["metadata"]["name"]


def test_the_policy_lets_workers_reach_what_the_settings_name(settings: Settings) -> None:
    """Kafka's port and both of ClickHouse's are open, and DNS."""
    source, clickhouse = settings.source, settings.clickhouse
    needed = {int(server.rsplit(":", 1)[1]) for server in source.servers} | {
        clickhouse.port,
        clickhouse.http_port,
        53,
    }
    opened = {p["port"] for rule in MANIFESTS["network-policy.yaml"]["spec"]["egress"] for p in rule["ports"]}
    assert opened == needed


def test_times_and_memory_are_the_products() -> None:
    """A worker has the time to leave its group, and its limit is the one that the alert on memory assumes."""
    grace = WORKERS["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > Settings.model_fields["revoke_ms_max"].default / 1000 + LEAVE_SECONDS_MAX
    assert (
        WORKER["resources"]["limits"]["memory"]
        == WORKER["resources"]["requests"]["memory"]
        == f"{MEMORY_LIMIT_GIB}Gi"
    )
