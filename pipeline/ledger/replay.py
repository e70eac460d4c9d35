"""Replaying stored events against a candidate rule set: reads blocks by lane, writes nothing."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.records.columns import U64, EventColumns
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.what_if import DimensionStrings, Findings, LaneReplay, Stored
from adledger.schemas.classes import Class
from adledger.schemas.event_columns import WINDOW_COLUMNS
from adledger.sinks.queries import CLOCK_FROM, read_column

if TYPE_CHECKING:
    from adledger.sinks.connection import Client

BLOCK_ROWS = 2**17
HASHES_PER_QUERY = 10_000
VERDICT_COLUMNS = ("lane_clock", "class_code", "reasons", "money_nanos", "judge_version")
PLACE_COLUMNS = ("batch_no", "topic", "offset")


@dataclass(frozen=True, slots=True)
class EvaluatedBy:
    """An evaluator version of events in the span, as the table `judges` keeps it."""

    version: int
    rules_version: int
    turned: tuple[str, ...]
    enforced: int
    lists_version: str
    publishers_version: str


@dataclass(frozen=True, slots=True)
class SpanOfTime:
    """Watermark (ms): from, and before."""

    start: int
    end: int

    @property
    def where(self) -> str:
        """The condition."""
        return f"lane_clock >= {CLOCK_FROM.format(self.start)} AND lane_clock < {CLOCK_FROM.format(self.end)}"


class Replay:
    """Reads what a replay needs. `client` streams events, `texts_client` answers look-ups in between."""

    def __init__(self, client: "Client", texts_client: "Client", tables: TableNames) -> None:
        self._client, self._texts_client, self._tables = client, texts_client, tables

    def lanes(self, span: SpanOfTime) -> list[tuple[int, int, int]]:
        """Return (lane, last batch in the ledger, events) of each lane with events in the span."""
        rows = self._client.execute(
            f"SELECT lane, max(last), count() FROM {self._tables('events')} AS e "
            f"INNER JOIN (SELECT lane, max(batch_no) AS last FROM {self._tables('ledger')} GROUP BY lane) AS l "
            f"USING (lane) WHERE {span.where} AND batch_no <= last GROUP BY lane ORDER BY lane"
        )
        return [(int(lane), int(last), int(events)) for lane, last, events in rows]

    def evaluated_by(self, span: SpanOfTime) -> tuple[dict[int, EvaluatedBy], list[int]]:
        """Return the evaluators of the span's events by version, and the versions that the table `judges` lacks."""
        database = self._tables.database
        versions = [
            int(version)
            for (version,) in self._client.execute(
                f"SELECT DISTINCT judge_version FROM {self._tables('events')} WHERE {span.where}"
            )
        ]
        listed = ", ".join(map(str, versions)) or "0"
        rows = self._client.execute(
            "SELECT version, any(rules_version), any(turned), any(enforced), any(lists_version), any(publishers_version) "
            f"FROM {database}.judges WHERE version IN ({listed}) GROUP BY version"
        )
        found = {
            int(r[0]): EvaluatedBy(int(r[0]), int(r[1]), tuple(r[2]), int(r[3]), r[4], r[5]) for r in rows
        }
        return found, [version for version in versions if version not in found]

    def malformed(self, span: SpanOfTime) -> int:
        """Return how many records of the span were malformed."""
        rows = self._client.execute(
            f"SELECT sum(records) FROM {self._tables('dead_letters')} WHERE {span.where}"
        )
        return int(rows[0][0])

    def first_clock(self) -> int:
        """Return the watermark (ms) of the first stored event."""
        rows = self._client.execute(
            f"SELECT toUnixTimestamp64Milli(min(lane_clock)) FROM {self._tables('events')}"
        )
        return int(rows[0][0])

    def run(
        self,
        candidate: RuleEvaluator,
        span: SpanOfTime,
        evaluated_by: Mapping[int, EvaluatedBy],
        *,
        samples_per_rule: int,
        progress: Callable[[int, int], None],
    ) -> Findings:
        """Replay all lanes; `progress` is called with each lane and its further events. Holds one block of events and the windows in memory."""
        findings = Findings()
        enforced = {version: evaluator.enforced for version, evaluator in evaluated_by.items()}
        texts = DimensionStrings(self.user_agents)
        for lane, last_batch, _ in self.lanes(span):
            replay = LaneReplay(lane, candidate, texts, enforced, findings, samples_per_rule)
            warm = SpanOfTime(replay.clock_from(span.start), span.start)
            if warm.start < warm.end:
                for columns, clock in self._events(lane, last_batch, warm):
                    replay.warm_up(columns, clock)
            for stored in self._stored(lane, last_batch, span):
                replay.replay(stored)
                progress(lane, len(stored.lane_clock))
        return findings

    def user_agents(self, hashes: U64) -> dict[int, bytes]:
        """Return the stored user agents behind hashes."""
        found: dict[int, bytes] = {}
        for start in range(0, len(hashes), HASHES_PER_QUERY):
            listed = ", ".join(map(str, hashes[start : start + HASHES_PER_QUERY].tolist()))
            rows = self._texts_client.execute(
                f"SELECT ua_hash, text FROM {self._tables('user_agents')} WHERE ua_hash IN ({listed})",
                settings={"strings_as_bytes": True},
            )
            found.update((int(h), bytes(text)) for h, text in rows)
        return found

    def _events(self, lane: int, last_batch: int, span: SpanOfTime) -> Iterator[tuple[EventColumns, Any]]:
        """Yield the non-duplicates of a span, for windows."""
        names = ("lane_clock", *WINDOW_COLUMNS)
        where = f"AND class_code != {Class.DUPLICATE:d}"
        for clock, *values in self._blocks(names, lane, last_batch, span, where):
            columns = replace(EventColumns.zeros(0), **dict(zip(WINDOW_COLUMNS, values, strict=True)))
            yield columns, clock

    def _stored(self, lane: int, last_batch: int, span: SpanOfTime) -> Iterator[Stored]:
        events = tuple(f.name for f in fields(EventColumns))
        for block in self._blocks((*VERDICT_COLUMNS, *PLACE_COLUMNS, *events), lane, last_batch, span):
            verdicts, rest = block[: len(VERDICT_COLUMNS)], block[len(VERDICT_COLUMNS) :]
            place, values = rest[: len(PLACE_COLUMNS)], rest[len(PLACE_COLUMNS) :]
            columns = EventColumns(**dict(zip(events, values, strict=True)))
            clock, class_code, reasons, money, version = verdicts
            yield Stored(columns, clock, class_code, reasons, money, version, tuple(place))

    def _blocks(
        self, names: tuple[str, ...], lane: int, last_batch: int, span: SpanOfTime, where: str = ""
    ) -> Iterator[list[Any]]:
        columns = ", ".join(read_column(name) for name in names)
        query = (
            f"SELECT {columns} FROM {self._tables('events')} AS events WHERE lane = {lane:d} AND batch_no <= {last_batch:d} "
            f"AND {span.where} {where} ORDER BY lane, batch_no, events.lane_clock, topic, offset"
        )
        return self._client.blocks(query, {"max_block_size": BLOCK_ROWS})
