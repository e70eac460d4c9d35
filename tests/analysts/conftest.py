"""Adversarial traffic that ran through the whole pipeline with rules, for all tests of what analysts use."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.loadtest.traffic.scenarios import SCENARIOS
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.addresses import FilesAddress
from adledger.pipeline.importing import import_file
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import Client, connect
from tests.analysts.story import START_MS, lines
from tests.support.clickhouse_servers import SERVERS, address_of, running_server

MODEL = TrafficModel(
    seed=5, events=4_000, partitions=2, duration_hours=5, users=400, user_head_users=10, publishers=30, click_share=0.2,
    duplicate_share=0.03, second_currency_share=0.3,
    scenarios=tuple(Scenario(kind=kind, actors=3, events_per_actor=30) for kind in SCENARIOS),
)  # fmt: skip

TIGHT = {
    "clicks_max = 12": "clicks_max = 4",
    "clicks_max = 3": "clicks_max = 1",
    "networks_max = 6": "networks_max = 2",
    "gap_max_minutes = 30": "gap_max_minutes = 1",
    "tolerance_percent = 2": "tolerance_percent = 50",
    "events_max = 120": "events_max = 8",
    "window_seconds = 60": "window_seconds = 600",
}
"""Limits so low that rules have hits."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A database of evaluated events: its server, settings (server address in them), and the rules."""

    client: Client
    settings: Settings
    rules: RuleSet


@pytest.fixture(scope="session", params=SERVERS)
def evaluated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Evaluated]:
    folder = tmp_path_factory.mktemp("analysts")
    text = load_rules(DEFAULT).text()
    for old, new in TIGHT.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "rules.toml").write_text(text)
    with open_log(folder / "log", MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    (folder / "story.jsonl").write_bytes(lines())
    import_file(
        folder / "story.jsonl", "wire", folder / "log", started_at_ms=START_MS + 86_400_000, partitions=MODEL.partitions,
        progress=lambda _done, _all: None,
    )  # fmt: skip
    with running_server(request.param, folder / "clickhouse") as running:
        address = address_of(running)
        where: dict[str, Any] = {
            "source": FilesAddress(folder / "log"), "clickhouse": address, "rules": str(folder / "rules.toml"),
            "cpu_threads": 1,
        }  # fmt: skip
        settings = Settings(**where)
        assert run_worker(settings, until_caught_up=True, progress=lambda _: None) is not None
        with connect(address) as client:
            yield Evaluated(client, settings, load_rules(settings.rules))
