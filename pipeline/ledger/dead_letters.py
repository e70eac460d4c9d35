"""Reading `dead_letters`: malformed records as they came, and why they are malformed."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from clickhouse_driver.errors import ServerException

from adledger.pipeline.errors import UsageError
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.pipeline.stages.malformed import MalformedReason, publisher_of, refusal_of
from adledger.pipeline.stages.snippets import escaped
from adledger.schemas.roles import ACCESS_DENIED
from adledger.schemas.wire import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, Malformed

MEANINGS = {
    Malformed.TOMBSTONE: "an empty or null value",
    Malformed.TOO_LARGE: "longer than the contract allows",
    Malformed.NOT_JSON: "not JSON, or not UTF-8",
    Malformed.TOO_DEEP: "nested too deep",
    Malformed.NOT_AN_OBJECT: "valid JSON, but not an object",
    Malformed.REPEATED_KEY: "a key appears twice in the object",
    Malformed.MISSING_FIELD: "a required field is absent",
    Malformed.WRONG_TYPE: "a field has another JSON type than the contract's",
    Malformed.OUT_OF_RANGE: "a number, text, length, currency, country or address outside the contract",
    Malformed.WRONG_TOPIC: "an event of the other kind's topic",
    Malformed.FROM_THE_FUTURE: "event_time is too far after its log time",
    Malformed.REJECTED_EARLIER: "an earlier release rejected it in a batch that was under way",
    Malformed.UNDECODABLE_BATCH: "a whole record batch that is not what its header says, or is too large",
}

EXAMINED_MAX = 5_000
"""Dead letters are counted by field and publisher among the latest: each is decoded again, with its bytes in memory."""

KEY_BYTES_SHOWN = 120
"""Enough for what workers say of a batch: its size and its SHA-256."""

_COLUMNS = "lane, batch_no, topic, offset, toUnixTimestamp64Milli(log_time), reason_code, key, value, records"
_COLUMNS_TO_COUNT = _COLUMNS.replace("value", f"substring(value, 1, {RECORD_BYTES_MAX + 1})")
"""More bytes change neither reason nor field."""
_COLUMNS_WITHOUT_BYTES = _COLUMNS.replace("key, value", "NULL, NULL")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One malformed record. `topic` is the topic's index, `lane` its partition, `log_time` ms since the epoch.

    Or a whole record batch that can't be decoded, which counts as `records` from `offset` on: `value` is its first
    bytes, header and all, `key` says how many there are and their SHA-256.

    `key` and `value` are None where the user may not read them.
    """

    lane: int
    batch_no: int
    topic: int
    offset: int
    log_time: int
    reason_code: int
    key: bytes | None
    value: bytes | None
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


class ExplainedLetter(NamedTuple):
    """Why a record is malformed, as far as its bytes are there and this release can tell; `publisher_id` None: not readable.

    `why.reason` is the stored one. `accepted`: this release would accept the record, so that no field is at fault.
    """

    why: MalformedReason
    publisher_id: int | None
    accepted: bool


def explain(letter: DeadLetter, kinds: Sequence[int]) -> ExplainedLetter:
    """Explain a dead letter by its bytes; `kinds` of the topics, as in Topology.kinds."""
    if letter.key is None or letter.value is None:
        return ExplainedLetter(MalformedReason(letter.reason_code, "", "", ""), None, accepted=False)
    if letter.reason_code == Malformed.UNDECODABLE_BATCH:
        allowed = f"a whole batch of at most {BATCH_BYTES_MAX >> 20} MiB and {BATCH_RECORDS_MAX:,} records"
        found = f"a {escaped(letter.key[:KEY_BYTES_SHOWN].decode('utf-8', 'backslashreplace'))}"
        return ExplainedLetter(MalformedReason(letter.reason_code, "", found, allowed), None, accepted=False)
    kind = kinds[letter.topic] if letter.topic < len(kinds) else 0
    why = refusal_of(letter.value, kind, letter.log_time)
    publisher = publisher_of(letter.value)
    if why is None:
        return ExplainedLetter(MalformedReason(letter.reason_code, "", "", ""), publisher, accepted=True)
    return ExplainedLetter(why._replace(reason=letter.reason_code), publisher, accepted=False)


class FaultGroup(NamedTuple):
    """What dead letters are counted by; `field` "" where none is at fault, `publisher_id` None where not readable."""

    reason: str
    field: str
    publisher_id: int | None
    allowed: str


def count_faults(letters: Sequence[DeadLetter], kinds: Sequence[int]) -> list[tuple[FaultGroup, int]]:
    """Return the faults with how many records have each, the most frequent first."""
    found: Counter[FaultGroup] = Counter()
    for letter in letters:
        why, publisher, _ = explain(letter, kinds)
        found[FaultGroup(letter.reason, why.field, publisher, why.allowed)] += letter.records
    return sorted(found.items(), key=lambda item: (-item[1], item[0][:2], item[0].publisher_id or -1))


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


def may_read_bytes(client: QueryClient, tables: TableNames) -> bool:
    """Whether the user may read the dead letters' keys and values."""
    try:
        client.execute(f"SELECT key, value FROM {tables('dead_letters')} LIMIT 0")
    except ServerException as error:
        if error.code != ACCESS_DENIED:
            raise
        return False
    return True


def latest(
    client: QueryClient,
    tables: TableNames,
    *,
    reason_code: int | None,
    lane: int | None,
    rows_max: int,
    with_bytes: bool,
    to_count: bool = False,
) -> list[DeadLetter]:
    """Return the dead letters with the latest log times, latest first. `to_count`: with values cut for `count_faults`."""
    of_reason = "1" if reason_code is None else f"reason_code = {reason_code:d}"
    where = f"{_of_lane(lane)} AND {of_reason} ORDER BY log_time DESC, lane, topic, offset DESC LIMIT {rows_max:d}"
    return _select(client, tables, where, with_bytes=with_bytes, to_count=to_count)


def find(
    client: QueryClient, tables: TableNames, topic: int, lane: int, offset: int, *, with_bytes: bool
) -> DeadLetter | None:
    """Return the dead letter of one offset, or of the record batch that covers it, or None."""
    covers = f"offset <= {offset:d} AND offset + records > {offset:d}"
    where = f"lane = {lane:d} AND topic = {topic:d} AND {covers} LIMIT 1"
    found = _select(client, tables, where, with_bytes=with_bytes)
    return found[0] if found else None


def _select(
    client: QueryClient, tables: TableNames, where: str, *, with_bytes: bool, to_count: bool = False
) -> list[DeadLetter]:
    readable = _COLUMNS_TO_COUNT if to_count else _COLUMNS
    columns = readable if with_bytes else _COLUMNS_WITHOUT_BYTES
    rows = client.execute(
        f"SELECT {columns} FROM {tables('dead_letters')} WHERE {where}", settings={"strings_as_bytes": True}
    )
    return [DeadLetter(*row) for row in rows]


def _of_lane(lane: int | None) -> str:
    return "1" if lane is None else f"lane = {lane:d}"
