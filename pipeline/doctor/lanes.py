"""Looking at each lane: its committed intent against the ledger, its lag, and its newest records."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from adledger.pipeline.doctor import keys
from adledger.pipeline.doctor.report import Check
from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.findings import Finding
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.lanes.recovery import find_start
from adledger.pipeline.lanes.start import limits
from adledger.pipeline.log.source import Committed, OffsetBounds, Reader, Source, Topology
from adledger.pipeline.records.encoded import Fetched
from adledger.pipeline.settings import Settings
from adledger.pipeline.stages.decode import DecodeContext
from adledger.pipeline.stages.walk import walk
from adledger.schemas.wire import currency_code
from adledger.sinks.sink import Sink

SAMPLE_RECORDS_MAX = 1_000
"""Of each topic's partition, the newest."""
SAMPLE_BYTES_MAX = 4 * 1024 * 1024
SAMPLE_WAIT_MS = 500
FOUND_LANES_MAX = 3
"""How many lanes are reported one by one: beyond that they usually share a cause."""


class LogView(Reader, Protocol):
    """A log that is read without joining its group."""

    @property
    def topology(self) -> Topology:
        """Topics and width."""

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        """Return what the group has committed. Raises LogError."""


@dataclass(slots=True)
class LanesInspection:
    """What was found in all lanes."""

    lag_records: int = 0
    stopped: dict[int, Finding] = field(default_factory=dict)
    samples: list[keys.KeySample] = field(default_factory=list)


async def inspect_lanes(view: LogView, settings: Settings, sink: Sink | None) -> LanesInspection:
    """Inspect every lane, one after the other; without a sink intents are only read. Raises LogError, SinkError."""
    seen = LanesInspection(samples=[keys.KeySample(topic) for topic in view.topology.topics])
    for lane in range(view.topology.partitions):
        try:
            bounds = await view.bounds(lane)
            await _sample(view, settings, lane, bounds, seen.samples)
            positions = await _positions(view, settings, lane, sink, bounds)
        except LaneHalted as error:
            seen.stopped[lane] = Finding(error.message, error.remedy)
        else:
            seen.lag_records += sum(max(0, b.end - positions[topic]) for topic, b in bounds.items())
    return seen


def lane_checks(seen: LanesInspection, lanes: int, *, with_ledger: bool) -> list[Check]:
    """Return the checks of the lanes' intents and newest records."""
    findings = [seen.stopped[lane] for lane in sorted(seen.stopped)[:FOUND_LANES_MAX]]
    if (more := len(seen.stopped) - len(findings)) > 0:
        findings.append(Finding(f"{more} more lanes would halt for such reasons", "fix the ones above first"))
    against = "against the ledger" if with_ledger else "as far as they can be read without ClickHouse"
    return [
        Check(
            "group",
            f"committed intents of {lanes} lanes, {against}; {seen.lag_records:,} records wait",
            findings,
        ),
        *(
            Check(
                "keys", f"{sample.topic}: the newest {sample.records:,} records", list(keys.findings(sample))
            )
            for sample in seen.samples
        ),
    ]


async def _positions(
    view: LogView, settings: Settings, lane: int, sink: Sink | None, bounds: Mapping[int, OffsetBounds]
) -> dict[int, int]:
    """Return where a worker would continue a lane. Raises LaneHalted where it would not."""
    first = {topic: b.first for topic, b in bounds.items()}
    if sink is not None:
        start = await find_start(_ports(view, settings, sink), lane)
        return first | dict(start.positions)
    committed = await view.committed(lane)
    for topic, at in committed.items():
        Intent.parse(at.metadata, f"lane {lane}, {view.topology.topics[topic]}")
    return first | {topic: at.offset for topic, at in committed.items()}


def _ports(view: LogView, settings: Settings, sink: Sink) -> Ports:
    """Return a lane's ports, of which looking uses only the log, the sink and the topology."""
    return Ports(
        source=cast("Source", view), sink=sink, topology=view.topology, limits=limits(settings, until_caught_up=True),
        run_cpu=asyncio.to_thread, write_texts=_never, pace=_never, announce=_never,
    )  # fmt: skip


async def _never(*_: object) -> None:
    raise AssertionError("the doctor writes nothing")


async def _sample(
    view: LogView,
    settings: Settings,
    lane: int,
    bounds: Mapping[int, OffsetBounds],
    samples: list[keys.KeySample],
) -> None:
    context = DecodeContext(
        lane, view.topology.partitions, view.topology.kinds, currency_code(settings.currency)
    )
    for topic, b in bounds.items():
        async for fetched in _newest(view, lane, topic, b):
            refs = walk(fetched)
            samples[topic].add(refs, context)


async def _newest(view: LogView, lane: int, topic: int, bounds: OffsetBounds) -> AsyncIterator[Fetched]:
    """Yield fetches over a partition's newest records, of SAMPLE_BYTES_MAX together or a record batch more."""
    position, left = max(bounds.first, bounds.end - SAMPLE_RECORDS_MAX), SAMPLE_BYTES_MAX
    while position < bounds.end and left > 0:
        [fetched] = await view.fetch(lane, {topic: position}, left, SAMPLE_WAIT_MS)
        if fetched.next_offset == position:
            return
        yield fetched
        left -= sum(batch.size for batch in fetched.batches)
        position = fetched.next_offset
