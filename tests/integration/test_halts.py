"""Every way a lane can halt, made to happen, and left as the message says: by the command that it prints.

On a real engine, and logs in folders; tests/integration/test_lane_overrides.py has those that need a broker.
"""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adledger import __version__
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError, LaneHalted, SinkError
from adledger.pipeline.halts import WAYS_OUT, HaltReason
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes import intent as intent_module
from adledger.pipeline.lanes import lane as lane_module
from adledger.pipeline.lanes import lane_runner
from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.lanes.events import BatchDone, Halted, LaneCrashed
from adledger.pipeline.lanes.start import make_worker
from adledger.pipeline.ledger.audit import AuditReport, Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.settings import Settings
from adledger.schemas.classes import Class
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.sink import Columns, Stamp
from tests.integration import test_lane_overrides
from tests.support.kafka_deployment import Deployment
from tests.support.way_out import SHOWN, printed_command, shows_the_way_out

MODEL = TrafficModel(seed=33, events=2_000, partitions=2, duration_hours=4, duplicate_share=0.1)
LATER_MS = 6 * 3_600_000
TOPICS = ["ad.impressions", "ad.clicks"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here: each has a database of its own."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


class Interrupted(ClickHouseSink):
    """A server that refuses the rollups of every lane: its batches stay in doubt, with their events."""

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        if table == "rollup_minute":
            raise SinkError("refused")
        await super().insert(table, columns, stamp)


@dataclass(frozen=True, slots=True)
class Site:
    """A log in a folder, its group, and its database."""

    made: Deployment
    log: Path

    @classmethod
    def make(cls, server: EmbeddedServer, folder: Path, **changes: Any) -> "Site":
        """Make an empty log of two partitions."""
        log = folder / "log"
        made = Deployment.without_topics(
            "", server, folder, source=f"files:{log}", topics=TOPICS, write_deadline_seconds=1, **changes
        )
        with open_log(log, MODEL.partitions):
            pass
        with made.client() as client:
            migrate(client, database=made.settings.database, release=__version__)
        return cls(made, log)

    def append(self, number: int = 0, events: int = MODEL.events) -> None:
        """Append traffic; each number follows the one before."""
        model = replace(MODEL, seed=33 + number, events=events, start_ms=MODEL.start_ms + number * LATER_MS)
        with open_log(self.log, MODEL.partitions) as writer:
            write_traffic(model, writer, lambda _: None)

    def run(self, sink: type[ClickHouseSink] = ClickHouseSink, **changes: Any) -> list[Event]:
        """Run a worker until it has caught up; raises what halts a lane. Return its events."""
        events: list[Event] = []
        try:
            self.run_emitting(events.append, sink, **changes)
        finally:
            self.events[:] = events
        return events

    def run_emitting(self, emit: Callable[[Event], None], sink: type[ClickHouseSink], **changes: Any) -> None:
        settings = self.made.settings.model_copy(update=changes)
        options = SinkOptions(database=settings.database, write_deadline_seconds=1)

        async def run() -> None:
            made = sink(self.made.server, options)
            source = FilesSource(self.log, settings.group)
            try:
                assert await make_worker(settings, source, made, until_caught_up=True, emit=emit).run()
            finally:
                await made.close()

        asyncio.run(run())

    def interrupt(self) -> None:
        """Leave every lane's next batch in doubt, with its events in the tables."""
        with pytest.raises(AdledgerError):
            self.run(Interrupted, retry_attempts_max=1)

    def halted(self, reason: HaltReason, **changes: Any) -> LaneHalted:
        """Return what halts the lowest halted lane, as a worker logs it; the event log has its name."""
        with pytest.raises(LaneHalted) as stopped:
            self.run(**changes)
        assert stopped.value.reason is reason
        assert reason in {event.halt_reason for event in self.events if isinstance(event, Halted)}
        return stopped.value

    @property
    def events(self) -> list[Event]:
        return EVENTS.setdefault(str(self.log), [])

    def command(self, arguments: list[str]) -> list[dict[str, Any]]:
        """Run a command of `adledger lane`; return the overrides that it wrote."""
        config = ["--config", str(self.made.folder / "adledger.toml"), "--json"]
        done = CliRunner().invoke(app, [*arguments, *config])
        assert done.exit_code == 0, (arguments, done.exception)
        found: list[dict[str, Any]] = json.loads(done.stdout)["overrides"]
        assert found
        return found

    def status(self) -> list[dict[str, Any]]:
        config = ["--config", str(self.made.folder / "adledger.toml"), "--json"]
        found: list[dict[str, Any]] = json.loads(CliRunner().invoke(app, ["lane", "status", *config]).stdout)[
            "lanes"
        ]
        return found

    def resolved(self, reason: HaltReason) -> list[dict[str, Any]]:
        """Leave each lane's halt by the command that it prints; then nothing halts. Return the overrides."""
        written: list[dict[str, Any]] = []
        while (halted := self.halts()) is not None:
            assert halted.reason is reason
            assert len(written) < MODEL.partitions, f"{reason} halts again"
            written += self.command(printed_command(halted))
        return written

    def halts(self, **changes: Any) -> LaneHalted | None:
        """Return what halts a lane now, if anything does."""
        try:
            self.run(**changes)
        except LaneHalted as error:
            return error
        return None

    def audited(self) -> AuditReport:
        """Return the audit, which must have no problems."""
        with self.made.client() as client:
            report = audit(client, TableNames(self.made.settings.database), Scope(), recount=True)
        assert (report.conserved, report.continuous, report.problems) == (True, True, [])
        return report

    def lost(self) -> int:
        return self.audited().totals.records.get(Class.LOST, 0)

    def kept(self) -> Path:
        """Keep a copy of the log as it is now."""
        copy = self.made.folder / "copy"
        shutil.copytree(self.log, copy, ignore=shutil.ignore_patterns("groups"))
        return copy

    def restore(self, copy: Path) -> None:
        """Put the copy in the log's place, as from a backup; the group's commits are newer."""
        shutil.copytree(copy, self.log, dirs_exist_ok=True)


EVENTS: dict[str, list[Event]] = {}


@pytest.fixture
def site(server: EmbeddedServer, tmp_path: Path) -> Site:
    """A log whose records are all in the ledger."""
    made = Site.make(server, tmp_path)
    made.append()
    made.run()
    return made


@shows_the_way_out(HaltReason.LOG_TRUNCATED)
def test_a_log_restored_from_a_backup(server: EmbeddedServer, tmp_path: Path):
    """The ledger goes beyond its end; by override the lanes continue there, in a new epoch."""
    site = Site.make(server, tmp_path)
    site.append()
    copy = site.kept()
    site.append(1)
    site.run()
    before = site.audited().totals.records_received
    site.restore(copy)
    assert {look["halt_reason"] for look in site.status()} == {"log_truncated"}
    overrides = site.resolved(HaltReason.LOG_TRUNCATED)
    assert {o["epoch"][-2:] for o in overrides} == {"~1"}
    site.append(2)
    site.run()
    assert site.audited().totals.records_received == before + MODEL.events


@shows_the_way_out(HaltReason.BATCH_TRUNCATED)
def test_a_log_that_ends_within_a_batch_in_doubt(site: Site):
    """Some of its rows are there: by override they are removed, and no offset is lost; the records come again."""
    before = site.audited().totals.records_received
    copy = site.kept()
    site.append(1)
    site.interrupt()
    site.restore(copy)
    (look, _) = site.status()
    assert (look["halt_reason"], look["command"]) == ("batch_truncated", "skip")
    overrides = site.resolved(HaltReason.BATCH_TRUNCATED)
    assert all(o["lost"] == 0 and o["rows_removed"]["events"] for o in overrides)
    site.append(1)
    site.run()
    assert site.audited().totals.records_received == before + MODEL.events
    assert site.lost() == 0


@shows_the_way_out(HaltReason.ROWS_UNVERIFIED)
def test_rows_of_records_that_the_log_no_longer_has(site: Site):
    """A batch in doubt has its rows, the log other records: by override the batch is cut again from these."""
    before = site.audited().totals.records_received
    copy = site.kept()
    site.append(1)
    site.interrupt()
    site.restore(copy)
    site.append(2, events=3 * MODEL.events)
    overrides = site.resolved(HaltReason.ROWS_UNVERIFIED)
    assert all(o["rows_removed"]["events"] for o in overrides)
    assert site.audited().totals.records_received == before + 3 * MODEL.events
    assert site.lost() == 0


@shows_the_way_out(HaltReason.PARTITIONS_UNRELATED)
def test_a_log_with_another_number_of_partitions(site: Site):
    """Two partitions became three: by override every lane goes on in the new log, from its beginning."""
    before = site.audited().totals.records_received
    shutil.rmtree(site.log)
    with open_log(site.log, 3) as writer:
        write_traffic(
            replace(MODEL, seed=99, partitions=3, start_ms=MODEL.start_ms + LATER_MS), writer, lambda _: None
        )
    for _ in range(3):
        site.command(printed_command(site.halted(HaltReason.PARTITIONS_UNRELATED)))
    site.run()
    assert site.audited().totals.records_received == before + MODEL.events


def commit(site: Site, changed: Callable[[str], str]) -> None:
    """Commit another text in the group's name, for every lane and topic, at the committed offsets."""

    class Member:
        async def lanes_assigned(self, assignments: Any) -> None:
            self.assignments: list[Assignment] = list(assignments)

        async def lanes_revoked(self, lanes: Any) -> None:
            pass

    async def run() -> None:
        source, member = FilesSource(site.log, site.made.settings.group), Member()
        await source.join(member)
        await asyncio.sleep(0)
        for assignment in member.assignments:
            at = await source.committed(assignment.lane)
            await source.commit(
                assignment, {t: Committed(c.offset, changed(c.metadata)) for t, c in at.items()}
            )
        await source.leave()

    asyncio.run(run())


@shows_the_way_out(HaltReason.COMMITS_UNREADABLE)
def test_another_program_commits_for_the_group(site: Site):
    """By override the lanes continue where the ledger ends, and nothing is counted twice."""
    before = site.audited().totals.records_received
    site.append(1)
    commit(site, lambda _: "consumed by cron")
    site.resolved(HaltReason.COMMITS_UNREADABLE)
    assert site.audited().totals.records_received == before + MODEL.events


@shows_the_way_out(HaltReason.NEWER_INTENT)
def test_an_intent_of_a_newer_release(site: Site, monkeypatch: pytest.MonkeyPatch):
    """No override would be right; the release that intended the batch goes on, as the remedy says."""
    assert WAYS_OUT[HaltReason.NEWER_INTENT].command == ""
    before = site.audited().totals.records_received
    site.append(1)
    site.interrupt()
    newer = intent_module.VERSION + 1
    commit(site, lambda text: text.replace(f'"v":{newer - 1}', f'"v":{newer}'))
    error = site.halted(HaltReason.NEWER_INTENT)
    assert error.remedy == "run the release that committed it, or a newer one"
    assert all(look["command"] is None for look in site.status())
    monkeypatch.setattr(intent_module, "VERSION", newer)
    monkeypatch.setattr(intent_module, "READABLE_VERSIONS", (newer,))
    site.run()
    assert site.audited().totals.records_received == before + MODEL.events


def segment_of(site: Site, topic: str, lane: int) -> Path:
    (found,) = (site.log / f"{topic}-{lane}").glob("*.log")
    return found


@shows_the_way_out(HaltReason.BATCH_UNREADABLE)
def test_a_damaged_batch(server: EmbeddedServer, tmp_path: Path):
    """What precedes it is delivered, and the other lane goes on; by override exactly its offsets are lost."""
    site = Site.make(server, tmp_path)
    site.append(0)
    file = segment_of(site, TOPICS[0], 1)
    size, end = file.stat().st_size, site.status()[1]["log"][TOPICS[0]]["end"]
    site.append(1)
    data = bytearray(file.read_bytes())
    data[size - 1] ^= 1  # in the last batch of the first traffic
    file.write_bytes(data)
    error = site.halted(HaltReason.BATCH_UNREADABLE)
    assert "fails its checksum" in error.message
    (whole, damaged) = site.status()
    assert (whole["lag_records"], whole["halt_reason"]) == (0, None)
    at = damaged["positions"][TOPICS[0]]
    assert 0 < at < end
    assert (damaged["halt_reason"], damaged["command"]) == ("batch_unreadable", "skip")
    assert f"--to {TOPICS[0]}={end}" in damaged["remedy"]
    (override,) = site.command(printed_command(error))
    site.run()
    assert site.lost() == override["lost"] == end - at
    assert site.audited().totals.records_received == 2 * MODEL.events - override["lost"]


def failing(error: type[Exception], offset: int) -> Callable[..., Any]:
    """Return a compute that fails on the batch with this impression of lane 1."""
    real = lane_module.compute

    def compute(refs: Any, clock: Any, state: Any, context: Any, *limits: Any) -> Any:
        found = real(refs, clock, state, context, *limits)
        if context.lane == 1 and ((refs.topic == 0) & (refs.offset == offset)).any():
            raise error("what never happens")  # when the state has taken the batch already
        return found

    return compute


@pytest.mark.parametrize(
    ("error", "reason"), [(ZeroDivisionError, HaltReason.BUG), (MemoryError, HaltReason.OUT_OF_MEMORY)]
)
@shows_the_way_out(HaltReason.BUG, HaltReason.OUT_OF_MEMORY)
def test_a_lane_whose_code_fails(
    error: type[Exception], reason: HaltReason, site: Site, monkeypatch: pytest.MonkeyPatch
):
    """The other lane goes on to its end; by override the batch's offsets are lost, no more, and nothing of it is kept."""
    before = site.audited().totals.records_received
    at = site.status()[1]["positions"][TOPICS[0]]
    site.append(1)
    monkeypatch.setattr(lane_module, "compute", failing(error, at + 300))
    halted = site.halted(reason, batch_rows_max=200)
    assert any(isinstance(event, LaneCrashed) and error.__name__ in event.traceback for event in site.events)
    done = [event.entry.lane for event in site.events if isinstance(event, BatchDone)]
    assert (set(done), site.status()[0]["lag_records"]) == ({0, 1}, 0)
    (override,) = site.command(printed_command(halted))
    start, end = override["ranges"][TOPICS[0]]
    assert (override["lane"], start <= at + 300 < end, start > at) == (1, True, True)
    site.run(batch_rows_max=200)
    assert site.status()[1]["lag_records"] == 0
    assert site.lost() == override["lost"] == 200
    assert site.audited().totals.records_received == before + MODEL.events - override["lost"]


async def test_a_running_worker_goes_on_without_a_restart(
    site: Site, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
):
    """A lane halted by a bug finds its override within seconds, in the same worker, and reaches the log's end."""
    monkeypatch.setattr(lane_runner, "OVERRIDE_POLL_SECONDS", 0.1)
    (_, look) = await asyncio.to_thread(site.status)
    monkeypatch.setattr(lane_module, "compute", failing(KeyError, look["positions"][TOPICS[0]]))
    await asyncio.to_thread(site.append, 1)
    settings: Settings = site.made.settings
    sink = ClickHouseSink(site.made.server, SinkOptions(database=settings.database, write_deadline_seconds=1))
    halts: asyncio.Queue[Halted] = asyncio.Queue()
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, Halted):
            halts.put_nowait(event)

    worker = make_worker(
        settings, FilesSource(site.log, settings.group), sink, until_caught_up=False, emit=emit
    )
    run = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(120):
            halted = await halts.get()
            assert (halted.lane, halted.halt_reason) == (1, HaltReason.BUG)
            error = LaneHalted(halted.reason, reason=HaltReason.BUG, remedy=halted.remedy)
            await asyncio.to_thread(site.command, printed_command(error))
            while any(look["lag_records"] for look in await asyncio.to_thread(site.status)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        worker.stop()
        await run
        await sink.close()
    assert await asyncio.to_thread(site.lost) > 0


def test_places_that_can_not_be_given_up(site: Site):
    """A healthy lane, an unknown topic, an offset behind or beyond the log: each is refused, and says what can be named."""
    config = ["--config", str(site.made.folder / "adledger.toml")]
    end = site.status()[0]["log"][TOPICS[0]]["end"]
    site.append(1)
    for place, says in (
        ("ad.nothing=7", "name one of ad.impressions, ad.clicks"),
        (TOPICS[0], "name one of"),
        (f"{TOPICS[0]}=-1", "name one of"),
        (f"{TOPICS[0]}={end - 1}", f"name an offset from {end}"),
        (f"{TOPICS[0]}={10**9}", f"name an offset from {end}"),
        (f"{TOPICS[0]}={end}", "name a later offset"),
    ):
        refused = CliRunner().invoke(
            app, ["lane", "skip", "0", "--to", place, "--reason", "x", "--dry-run", *config]
        )
        assert isinstance(refused.exception, AdledgerError), place
        assert says in refused.exception.remedy


def test_the_end_of_the_log_is_a_place(site: Site):
    """`end` gives up everything that is in the log now, and nothing that comes later."""
    site.append(1)
    (override,) = site.command(
        [
            "lane",
            "skip",
            "1",
            "--to",
            f"{TOPICS[0]}=end",
            "--to",
            f"{TOPICS[1]}=end",
            "--reason",
            "x",
            "--execute",
        ]
    )
    assert override["lost"] == site.status()[1]["lag_records"]
    site.append(2)
    site.run()
    assert site.lost() == override["lost"]
    assert site.audited().totals.records_received == 3 * MODEL.events - override["lost"]


def test_every_reason_has_a_test_that_shows_its_way_out():
    """A reason that is added comes with its way out, tried on real logs and tables."""
    assert test_lane_overrides
    assert set(SHOWN) == set(HaltReason)
