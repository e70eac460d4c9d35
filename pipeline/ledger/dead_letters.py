"""Reading `dead_letters`: malformed records as they came, and why they are malformed."""

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime

from adledger.pipeline.errors import UsageError
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.schemas.wire import Malformed

MEANINGS = {
    Malformed.TOMBSTONE: "an empty or null value",
    Malformed.TOO_LARGE: "longer than the contract allows",
    Malformed.NOT_JSON: "not valid JSON, or not valid UTF-8",
    Malformed.TOO_DEEP: "nested too deep",
    Malformed.NOT_AN_OBJECT: "valid JSON, but not an object",
    Malformed.REPEATED_KEY: "a key appears twice in the object",
    Malformed.MISSING_FIELD: "a required field is absent",
    Malformed.WRONG_TYPE: "a field has another JSON type than the contract's",
    Malformed.OUT_OF_RANGE: "a number, length, currency, country or address outside the contract",
    Malformed.WRONG_TOPIC: "an event of the other kind's topic",
    Malformed.FROM_THE_FUTURE: "event_time is too far after its log time",
    Malformed.REJECTED_EARLIER: "an earlier release rejected it in a batch that was under way",
    Malformed.UNDECODABLE_BATCH: "a whole record batch that is not what its header says, or is too large",
}

_COLUMNS = "lane, batch_no, topic, offset, toUnixTimestamp64Milli(log_time), reason_code, key, value, records"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One malformed record. `topic` is the topic's index, `lane` its partition, `log_time` ms since the epoch.

    Or a whole record batch that can't be decoded, which counts as `records` from `offset` on: `value` is its first
    bytes, header and all, `key` says how many there are and their SHA-256.
    """

    lane: int
    batch_no: int
    topic: int
    offset: int
    log_time: int
    reason_code: int
    key: bytes
    value: bytes
    records: int = 1

    @property
    def reason(self) -> str:
        """Name of the reason."""
        return reason_name(self.reason_code)

    @property
    def meaning(self) -> str:
        """What the reason means."""
        return MEANINGS.get(Malformed(self.reason_code), "")

    @property
    def log_time_text(self) -> str:
        """Log time, ISO 8601, UTC."""
        return datetime.fromtimestamp(self.log_time / 1000, UTC).isoformat(timespec="milliseconds")


def reason_name(code: int) -> str:
    """Return a reason's name as it is in ClickHouse."""
    return Malformed(code).name.lower()


def reason_code(name: str) -> int:
    """Return a reason's number. Raises UsageError listing the known reasons."""
    known = {reason_name(code): int(code) for code in Malformed if code != Malformed.OK}
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else "they are " + ", ".join(known)
        raise UsageError(f"{name} is not a reason of a dead letter", remedy=remedy)
    return known[name.lower()]


def counts(client: QueryClient, tables: TableNames, lane: int | None) -> dict[str, int]:
    """Return reason name -> malformed records, the most frequent first."""
    rows = client.execute(
        f"SELECT reason_code, sum(records) AS n FROM {tables('dead_letters')} WHERE {_of_lane(lane)} "
        "GROUP BY reason_code ORDER BY n DESC, reason_code"
    )
    return {reason_name(code): n for code, n in rows}


def latest(
    client: QueryClient, tables: TableNames, *, reason_code: int | None, lane: int | None, rows_max: int
) -> list[DeadLetter]:
    """Return the dead letters with the latest log times, latest first."""
    of_reason = "1" if reason_code is None else f"reason_code = {reason_code:d}"
    where = f"{_of_lane(lane)} AND {of_reason} ORDER BY log_time DESC, lane, topic, offset DESC LIMIT {rows_max:d}"
    return _select(client, tables, where)


def find(client: QueryClient, tables: TableNames, topic: int, lane: int, offset: int) -> DeadLetter | None:
    """Return the dead letter of one offset, or of the record batch that covers it, or None."""
    covers = f"offset <= {offset:d} AND offset + records > {offset:d}"
    found = _select(client, tables, f"lane = {lane:d} AND topic = {topic:d} AND {covers} LIMIT 1")
    return found[0] if found else None


def _select(client: QueryClient, tables: TableNames, where: str) -> list[DeadLetter]:
    rows = client.execute(
        f"SELECT {_COLUMNS} FROM {tables('dead_letters')} WHERE {where}", settings={"strings_as_bytes": True}
    )
    return [DeadLetter(*row) for row in rows]


def _of_lane(lane: int | None) -> str:
    return "1" if lane is None else f"lane = {lane:d}"
