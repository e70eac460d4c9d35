"""The demo's procedure: real logs, then generated traffic with attacks in it, evaluated and checked against the ground truth."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Protocol

from adledger.loadtest.real_logs.expected import expected_of_files
from adledger.loadtest.traffic.expected_records import GeneratedRecords, ListedRecords
from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.kernels.shapes import I64
from adledger.loadtest.traffic.lookup_tables import Lookup
from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.loadtest.traffic.recipes import MALFORMED_RECIPES, ODD_RECIPES
from adledger.loadtest.traffic.scenarios import scenario_rows
from adledger.loadtest.traffic.write import write_traffic
from adledger.loadtest.verification.verdicts import VerdictCheck, check_verdicts
from adledger.loadtest.verification.verify import ColumnarClient, VerificationReport, verify
from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing import import_file
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.log.files.writer import FilesLogWriter
from adledger.pipeline.rules.loader import NONE, today
from adledger.pipeline.settings import Settings

REAL_LOGS = (("access-log", "apache_access.log.gz"), ("open-bandit", "open_bandit_women.csv.gz"))
"""Format and file of the real logs, the older one first: log time only rises."""

LOG, CLICKHOUSE = "log", "clickhouse"
"""Folders within the demo's folder."""

TOP_PUBLISHERS = 10

EVENTS_PER_ACTOR, ACTORS_MAX = 50_000, 40
"""One actor of each attack per this many events: 1 % of two million. A shorter demo has no attacks."""
ATTACKS = ("datacentre_bot", "impostor", "hidden_ad", "double_click", "injected_click")


@dataclass(frozen=True, slots=True)
class Filled:
    """A filled log, its expected tables, and how long it took."""

    real_records: int
    generated_records: int
    generate_seconds: float
    ground_truth: GroundTruth
    expected: tuple[ListedRecords, GeneratedRecords]

    @property
    def lane_records(self) -> I64:
        """Records of each lane."""
        return self.ground_truth.classes.sum(axis=1)


class FillProgress(Protocol):
    """The progress shown while the log is filled."""

    def importing(self, name: str) -> Callable[[int, int], None]:
        """Start showing an import; the function returned takes the bytes read and their total."""

    def generating(self, events: int) -> Callable[[int], None]:
        """Start showing the generator; the function returned takes the records that each step wrote."""


@dataclass(frozen=True, slots=True)
class TopPublisher:
    """One row of the top publishers: billable impressions and clicks, and money as ClickHouse writes it."""

    publisher_id: int
    impressions: int
    clicks: int
    money: str


def fresh_folder(wanted: Path | None) -> Path:
    """Return a folder that is empty or not there yet: the wanted one, or data/demo, data/demo-2, ...

    Raises UsageError when the wanted one holds something.
    """
    if wanted is not None:
        if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
            raise UsageError(f"{wanted} is not an empty folder", remedy="Name a folder that is new or empty.")
        return wanted
    base = Path("data") / "demo"
    number = 2
    folder = base
    while folder.exists():
        folder = base.with_name(f"demo-{number}")
        number += 1
    return folder


def demo_model(events: int, seed: int, settings: Settings) -> TrafficModel:
    """Return traffic of exactly `events` records, including the attacks'."""
    actors = min(ACTORS_MAX, events // EVENTS_PER_ACTOR)
    spread = [Scenario(kind=kind, actors=actors, start_hour=2.0, hours=20.0) for kind in ATTACKS]
    dense = Scenario(kind="click_flood", actors=max(1, actors // 4), start_hour=12.0, hours=1.0)
    model = TrafficModel(
        seed=seed,
        events=events,
        currency=settings.currency,
        dedupe_window_hours=settings.dedupe_window_hours,
        allowed_lateness_hours=settings.allowed_lateness_hours,
        scenarios=(*spread, dense) if actors else (),
    )
    lookup = Lookup(model, malformed_recipes=len(MALFORMED_RECIPES), odd_recipes=len(ODD_RECIPES))
    return replace(model, events=events - len(scenario_rows(model, lookup)))


def fill_log(log: Path, model: TrafficModel, progress: FillProgress) -> Filled:
    """Make a log of the real logs and the model's traffic. Raises UsageError, LogError."""
    with _real_files() as files:
        records = 0
        for kind, path in files:
            records += import_file(
                path,
                kind,
                log,
                started_at_ms=time.time_ns() // 1_000_000,
                partitions=model.partitions,
                progress=progress.importing(path.name),
            ).records
        real = expected_of_files(files, model.partitions, model.currency)
    begin = time.monotonic()
    with FilesLogWriter(log) as writer:
        written = write_traffic(model, writer, progress.generating(model.events))
    seconds = time.monotonic() - begin
    ground_truth = GroundTruth.of(real, model.partitions).merge(written.ground_truth)
    return Filled(
        records,
        written.ground_truth.records_received,
        seconds,
        ground_truth,
        (ListedRecords(real), GeneratedRecords(written)),
    )


def check(
    filled: Filled, client: ColumnarClient, settings: Settings
) -> tuple[VerificationReport, VerdictCheck]:
    """Compare all tables with the ground truth, explain each difference, and check the rules' verdicts."""
    report = verify(
        filled.ground_truth, client, settings.database, filled.expected, before_rules=settings.rules != NONE
    )
    lists = load_lists(today(), directory=settings.lists_dir, age_days_max=settings.list_age_days_max)
    return report, check_verdicts(client, settings.database, report.totals, lists)


def top_publishers(client: ColumnarClient, database: str) -> list[TopPublisher]:
    """Return the publishers that earned most, from the view for analysts."""
    columns = "publisher_id, sum(impressions), sum(clicks), toString(sum(money))"
    best = f"GROUP BY publisher_id ORDER BY sum(money) DESC, publisher_id LIMIT {TOP_PUBLISHERS}"
    rows = client.execute(f"SELECT {columns} FROM {database}.v_rollup_minute {best}")  # noqa: S608
    return [TopPublisher(*row) for row in rows]


@contextmanager
def _real_files() -> Iterator[Sequence[tuple[str, Path]]]:
    """Give (format, path) of the real logs, which are package data."""
    with ExitStack() as stack:
        yield [
            (
                kind,
                stack.enter_context(resources.as_file(resources.files("adledger.loadtest.real_logs") / name)),
            )
            for kind, name in REAL_LOGS
        ]
