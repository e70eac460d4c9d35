"""One sample: generated, replayed into an embedded ClickHouse, verified in full, and measured."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from adledger import __version__
from adledger.loadtest.day.plan import START_MS, Sample
from adledger.loadtest.day.replay import Replayed
from adledger.loadtest.lab.measured_process import cpu_seconds, measured
from adledger.loadtest.traffic.ground_truth import ROLLUP, GroundTruth, added
from adledger.loadtest.traffic.kernels.shapes import Records
from adledger.loadtest.traffic.write import write_traffic
from adledger.loadtest.verification.differences import differing
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.schemas.classes import Class
from adledger.schemas.migrate import migrate
from adledger.schemas.tables import PROTOCOL_TABLES, TEXT_COLUMNS
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer, search_path

DATABASE = "adledger"
REPLAY_SECONDS_MAX = 4 * 3_600
REPORT_SECONDS = 10.0
"""Between two progress lines of a replay; each counts some hundred ledger rows."""
LARGE_PARTS_CODEC = "ZSTD(3)"
"""The codec that the engine chooses for parts as large as a whole day's; a sample's small ones would stay LZ4, twice the size."""
FIRST_DAY = time.strftime("%Y%m%d", time.gmtime(START_MS / 1_000))


@dataclass(frozen=True, slots=True)
class MeasuredSample:
    """What a sample took. Rows and bytes are the day's own by table, merged; `problems` is empty where everything is right."""

    lanes: int
    scale: str
    events: int
    generate_seconds: float
    seconds: float
    worker_cpu_seconds: float
    server_cpu_seconds: float
    worker_memory_bytes: int
    batches: int
    inserts: int
    dedupe_entries: int
    rows: dict[str, int]
    bytes: dict[str, int]
    text_rows: int
    retention_runs: int
    retention_rows: int
    quarters_closed: int
    problems: tuple[str, ...]


def measure(
    sample: Sample, folder: Path, settings: dict[str, Any], say: Callable[[str], None]
) -> MeasuredSample:
    """Generate, replay, verify and measure in a new folder; the log and the tables stay there. Raises AdledgerError."""
    folder.mkdir(parents=True)
    day, begin = sample.day, time.monotonic()
    say(f"{sample.scale}: generating {day.events:,} events for {sample.lanes} lanes")
    with open_log(folder / "log", sample.lanes) as writer:
        old = write_traffic(sample.old, writer, lambda _: None).ground_truth
        ground_truth = write_traffic(day, writer, lambda _: None).ground_truth
    generated = time.monotonic() - begin
    say(f"{sample.scale}: replaying them, {sample.whole.batch_rows:,} records a batch")
    with EmbeddedServer.start(folder / "clickhouse") as server:
        address = ServerAddress(server.host, server.port, server.http_port)
        client = connect(address)
        try:
            migrate(client, database=DATABASE, cluster=None, release=__version__)
            before = cpu_seconds(server.pid)
            with _progress(address, sample, say):
                done, memory = _replayed(sample, folder, address, settings)
            server_cpu = cpu_seconds(server.pid) - before
            say(f"{sample.scale}: comparing every publisher-minute with the ground truth")
            problems = tuple(_problems(ground_truth.merge(old), done, client))
            rows, size = _stored(client)
            batches = _count(client, "ledger", f"WHERE toYYYYMMDD(clock_after) >= {FIRST_DAY}")
            texts = sum(_count(client, table) for table in TEXT_COLUMNS)
        finally:
            client.disconnect()
    return MeasuredSample(
        lanes=sample.lanes, scale=str(sample.scale), events=day.events, generate_seconds=round(generated, 3),
        seconds=round(done.seconds, 3), worker_cpu_seconds=round(done.cpu_seconds, 3), server_cpu_seconds=server_cpu,
        worker_memory_bytes=memory, batches=batches,
        inserts=sum(done.inserts.get(table, 0) for table in PROTOCOL_TABLES),
        dedupe_entries=sum(done.dedupe_entries.values()), rows=rows, bytes=size, text_rows=texts,
        retention_runs=done.retention_runs, retention_rows=done.retention_rows,
        quarters_closed=done.quarters_closed, problems=problems,
    )  # fmt: skip


def _replayed(
    sample: Sample, folder: Path, address: ServerAddress, settings: dict[str, Any]
) -> tuple[Replayed, int]:
    values = {
        "source": f"files:{folder / 'log'}", "clickhouse": str(address), "database": DATABASE,
        "batch_rows_max": sample.whole.batch_rows, "batch_age_ms_max": 60_000,  # closed by rows, as if by log time
        "retention_events_days": 1, "inserts_per_second_max": 10_000, "cpu_threads": 1, **settings,
    }  # fmt: skip
    (folder / "replay.json").write_text(json.dumps({"settings": values, "lanes": sample.lanes}), "utf-8")
    out = folder / "replayed.json"
    cost = measured(
        [sys.executable, "-m", "adledger.loadtest.day.replay", str(folder / "replay.json")], folder / "replay.log",
        seconds_max=REPLAY_SECONDS_MAX, env={"PYTHONPATH": search_path()}, out=out,
    )  # fmt: skip
    done = Replayed(**json.loads(out.read_text("utf-8")))
    if not done.caught_up:
        raise AdledgerError(
            "the replay was stopped before its log's end", remedy=f"read {folder / 'replay.log'}"
        )
    return done, cost.memory_bytes


@contextmanager
def _progress(address: ServerAddress, sample: Sample, say: Callable[[str], None]) -> Iterator[None]:
    """Report from time to time how much of the day is in the ledger."""
    ended, of = Event(), sample.day.events

    def report() -> None:
        client = connect(address)
        try:
            while not ended.wait(REPORT_SECONDS):
                [[done]] = client.execute(
                    f"SELECT sum(records_received) FROM {DATABASE}.ledger WHERE toYYYYMMDD(clock_after) >= {FIRST_DAY}"  # noqa: S608 - ours
                )
                say(f"{sample.scale}: {done:,} of {of:,} events, {100 * done // of} %")
        finally:
            client.disconnect()

    with ThreadPoolExecutor(1) as threads:
        reporting = threads.submit(report)
        try:
            yield
        finally:
            ended.set()
    reporting.result()


def _stored(client: Client) -> tuple[dict[str, int], dict[str, int]]:
    """Merge the day's partitions, and return rows and bytes on disk by table, compressed as a whole day's parts are."""
    for table in PROTOCOL_TABLES:
        client.execute(
            f"ALTER TABLE {DATABASE}.{table} MODIFY SETTING default_compression_codec = '{LARGE_PARTS_CODEC}'"
        )
        client.execute(f"OPTIMIZE TABLE {DATABASE}.{table} FINAL")
    found = client.execute(
        "SELECT table, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = %(database)s "
        "AND table IN %(tables)s AND partition_id >= %(day)s GROUP BY table",
        {"database": DATABASE, "tables": PROTOCOL_TABLES, "day": FIRST_DAY},
    )
    return {t: int(n) for t, n, _ in found}, {t: int(size) for t, _, size in found}


def _count(client: Client, table: str, where: str = "") -> int:
    return int(client.execute(f"SELECT count() FROM {DATABASE}.{table} {where}")[0][0])  # noqa: S608 - ours


def _problems(ground_truth: GroundTruth, done: Replayed, client: Client) -> list[str]:
    """Return what contradicts the ground truth, the ledger's own laws, or retention."""
    report = audit(client, TableNames(DATABASE), Scope(), recount=False)
    problems = [] if report.conserved and report.continuous else ["the ledger does not add up"]
    if report.totals.records_received != ground_truth.records_received:
        problems.append(
            f"{report.totals.records_received:,} records received, not {ground_truth.records_received:,}"
        )
    wrong = len(differing(_before_rules(ground_truth.rollup), _before_rules(_rollups(client))))
    if wrong:
        problems.append(f"{wrong:,} publisher-minutes differ from the ground truth")
    if not done.retention_rows:
        problems.append("retention dropped nothing of what was days old")
    return problems


def _before_rules(rollup: Records) -> Records:
    """Return a rollup with what rules filtered counted as billable again: the ground truth knows no rules."""
    rows = rollup.copy()
    rows["class_code"][np.isin(rows["class_code"], (Class.GIVT, Class.SIVT))] = Class.BILLABLE
    return added(rows)


def _rollups(client: Client) -> Records:
    columns = client.columns(
        "SELECT publisher_id, toUnixTimestamp(minute) AS m, event_type_code, class_code, currency_code, "  # noqa: S608
        f"toInt64(sum(records)), toInt64(sum(money_nanos)) FROM {DATABASE}.rollup_minute "
        "GROUP BY publisher_id, m, event_type_code, class_code, currency_code"
    )
    rows = np.empty(len(columns[0]) if columns else 0, ROLLUP)
    for name, column in zip(ROLLUP.names or (), columns or (), strict=bool(columns)):
        rows[name] = column
    return rows
