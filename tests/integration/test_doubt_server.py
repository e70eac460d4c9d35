"""In doubt on ClickHouse's own server: however an insert of any table ends, the tables end as the ground truth has them."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from adledger import __version__
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.errors import InsertRefused, InsertUnknown, LaneHalted, SinkUnavailable
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.doubt import Settlement
from adledger.pipeline.lanes.start import lines_to, make_worker
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.settings import Settings
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.sink import Columns, Stamp
from tests.support.clickhouse_servers import address_of

TABLES = ("events", "dead_letters", "rollup_minute", "ledger")
UNAVAILABLE, LOST, UNANSWERED, ABANDONED, LATE, ON_THE_WIRE = FATES = (
    "unavailable", "lost", "unanswered", "abandoned", "late", "on the wire",
)  # fmt: skip
"""What becomes of an insert: never sent; lost before the server has it; stored, its answer lost; cut off while the server
may be at it; at the server after its deadline; held back by the network until the lane has counted its rows."""

FATE_OF_LANE = dict(enumerate(product(TABLES, FATES)))
BATCH_NO = 2
"""The batch whose insert has the lane's fate."""

MODEL = TrafficModel(
    seed=17, events=len(FATE_OF_LANE) * 400, partitions=len(FATE_OF_LANE), duration_hours=3, duplicate_share=0.1,
    malformed_share=0.1,
)  # fmt: skip


class FaultySink(ClickHouseSink):
    """A sink whose lanes have a fate each."""

    def __init__(
        self, address: ServerAddress, options: SinkOptions, fates: Mapping[int, tuple[str, str]]
    ) -> None:
        super().__init__(address, options)
        self._fates = dict(fates)
        self._on_the_wire: dict[int, tuple[str, Columns, Stamp]] = {}
        self.met: list[int] = []
        self.refused: list[tuple[int, bool]] = []

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        if stamp.batch_no != BATCH_NO or self._fates.get(stamp.lane, ("", ""))[0] != table:
            await super().insert(table, columns, stamp)
            return
        _, fate = self._fates.pop(stamp.lane)
        self.met.append(stamp.lane)
        if fate == UNAVAILABLE:
            raise SinkUnavailable("no connection")
        if fate == LATE:
            await super().insert(table, columns, replace(stamp, send_by=await self.server_time() - 1))
        if fate == UNANSWERED:
            await super().insert(table, columns, stamp)
        if fate == ABANDONED:
            sent = asyncio.create_task(super().insert(table, columns, stamp))
            await asyncio.wait({sent}, timeout=0)
            sent.cancel()
            await asyncio.wait({sent})
        if fate == ON_THE_WIRE:
            self._on_the_wire[stamp.lane] = table, columns, stamp
        raise InsertUnknown(fate)

    async def batch_rows(self, lane: int, batch_no: int) -> Mapping[str, int]:
        there = await super().batch_rows(lane, batch_no)
        if (arrives := self._on_the_wire.pop(lane, None)) is not None:
            try:
                await super().insert(*arrives)
            except InsertRefused as error:
                self.refused.append((lane, error.late))
        return there


def filled(folder: Path, model: TrafficModel) -> GroundTruth:
    with open_log(folder, model.partitions) as writer:
        return write_traffic(model, writer, lambda _: None).ground_truth


def run(
    server: ClickHouseServer, log: Path, database: str, fates: Mapping[int, tuple[str, str]]
) -> tuple[FaultySink, list[str]]:
    """Run a worker to the log's end, with these fates; return its sink and its output."""
    address, lines = address_of(server), list[str]()
    settings = Settings(
        source=FilesAddress(log), clickhouse=address, database=database, group=database, rules="none",
        write_deadline_seconds=2, batch_rows_max=128, inserts_per_second_max=1_000, retry_backoff_ms_max=500,
    )  # fmt: skip
    with connect(address) as client:
        migrate(client, database=database, release=__version__)

    async def to_the_end() -> FaultySink:
        sink = FaultySink(address, SinkOptions(database=database, write_deadline_seconds=2), fates)
        source = FilesSource(log, settings.group)
        try:
            worker = make_worker(settings, source, sink, until_caught_up=True, emit=lines_to(lines.append))
            assert await worker.run()
        finally:
            await sink.close()
        return sink

    return asyncio.run(to_the_end()), lines


def test_every_insert_goes_wrong_in_every_way(clickhouse_server: ClickHouseServer, tmp_path: Path) -> None:
    """Each lane has another table's insert fail in another way: the server's deadline refuses what comes after the count,
    each batch in doubt is settled, and every table equals the ground truth.
    """
    ground_truth = filled(tmp_path / "log", MODEL)
    sink, lines = run(clickhouse_server, tmp_path / "log", "doubt", FATE_OF_LANE)
    assert sorted(sink.met) == sorted(FATE_OF_LANE)
    on_the_wire = [lane for lane, (_, fate) in FATE_OF_LANE.items() if fate == ON_THE_WIRE]
    assert sorted(sink.refused) == [(lane, True) for lane in on_the_wire]
    for lane, fate in FATE_OF_LANE.items():
        assert any(f"lane {lane}, batch {BATCH_NO}: settled" in line for line in lines), fate
    with connect(address_of(clickhouse_server)) as client:
        report = verify(ground_truth, client, "doubt")
        assert report.equal, report
        assert not audit(client, TableNames("doubt"), Scope(), recount=True).problems


def test_control_counting_too_early(
    clickhouse_server: ClickHouseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without waiting for the deadline, the server stores what comes after the count, and the lane finds its rows
    twice.
    """

    async def at_once(self: Settlement, second: int) -> None:
        return

    monkeypatch.setattr(Settlement, "_wait_past", at_once)
    filled(tmp_path / "log", replace(MODEL, partitions=1, events=400))
    with pytest.raises(LaneHalted, match="were intended"):
        run(clickhouse_server, tmp_path / "log", "doubt_control", {0: ("events", ON_THE_WIRE)})
