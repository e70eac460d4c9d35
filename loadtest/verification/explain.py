"""The events behind a difference: each named by topic, lane and offset, with what was expected and found."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from adledger.loadtest.traffic.expected_records import ExpectedRecords
from adledger.loadtest.traffic.ground_truth import EXPECTED, ROLLUP_KEY
from adledger.loadtest.traffic.labels import Label
from adledger.loadtest.verification.differences import RollupDifference
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.schemas.classes import CLASS_NAMES, Class
from adledger.schemas.wire import Malformed

EXPLANATIONS_MAX = 200
BATCHES_MAX = 5
"""The most contradictory batches that are named: they come first, and leave room for events."""

Place = tuple[int, int, int]
"""Topic index, lane, offset."""


class EventFields(NamedTuple):
    """An event's publisher, minute, type, class and currency, as in ROLLUP_KEY, and its nanos."""

    key: tuple[int, ...]
    money_nanos: int
    label: int = Label.HONEST

    def __str__(self) -> str:
        publisher, _, _, code, _ = self.key
        why = "" if self.label == Label.HONEST else f" ({Label(self.label).name.lower()})"
        return f"{CLASS_NAMES[Class(code)]} of publisher {publisher}, {self.money_nanos:,} nanos{why}"


def explain(
    wrong: Sequence[RollupDifference],
    client: QueryClient,
    tables: TableNames,
    records: Sequence[ExpectedRecords],
    class_code: str = "class_code",
) -> list[str]:
    """Return a line for each event behind the wrong rows, and for each malformed record, that is not as expected.

    `class_code`: what is compared as an event's class (SQL).
    """
    expected = _expected(wrong, records)
    found = _events(client, tables, class_code, _in_publisher_minutes(wrong)) if wrong else {}
    missing = sorted(place for place in expected if place not in found)
    found |= _events(client, tables, class_code, _at_places(missing)) if missing else {}
    letters = _dead_letters(client, tables)
    of_events = [*_events_explained(expected, found, letters), *_letters_explained(records, letters)]
    if wrong and not of_events and records:
        of_events = ["every event behind these rows is in `events` as expected: the rollup is wrong"]
    return [*_batches_explained(client, tables), *of_events][:EXPLANATIONS_MAX]


def _batches_explained(client: QueryClient, tables: TableNames) -> Iterator[str]:
    """Yield the batches whose tables contradict each other: each has one ledger row, and its events' sums as rollups."""
    for lane, batch, events, nanos, rolled_up, rolled_nanos, ledgered in client.execute(
        "SELECT lane, batch_no, sum(events), sum(nanos), sum(rolled_up), sum(rolled_nanos), sum(ledgered) FROM ("
        "SELECT lane, batch_no, toInt64(count()) AS events, sum(money_nanos) AS nanos, toInt64(0) AS rolled_up, "
        f"toInt128(0) AS rolled_nanos, toInt64(0) AS ledgered FROM {tables('events')} GROUP BY lane, batch_no "
        "UNION ALL SELECT lane, batch_no, 0, 0, toInt64(sum(records)), sum(money_nanos), 0 "
        f"FROM {tables('rollup_minute')} GROUP BY lane, batch_no "
        f"UNION ALL SELECT lane, batch_no, 0, 0, 0, 0, toInt64(count()) FROM {tables('ledger')} GROUP BY lane, batch_no"
        ") GROUP BY lane, batch_no HAVING sum(events) != sum(rolled_up) OR sum(nanos) != sum(rolled_nanos) "
        f"OR sum(ledgered) != 1 ORDER BY lane, batch_no LIMIT {BATCHES_MAX:d}"
    ):
        where = f"lane {lane}, batch {batch}"
        if ledgered != 1:
            yield f"{where}: {ledgered} ledger rows, not 1; {events:,} events, {rolled_up:,} in rollup_minute"
        else:
            yield (
                f"{where}: {events:,} events with {nanos:,} nanos, but {rolled_up:,} with {rolled_nanos:,} nanos in "
                "rollup_minute"
            )


def _events_explained(
    expected: dict[Place, EventFields], found: dict[Place, list[EventFields]], letters: dict[Place, int]
) -> Iterator[str]:
    for place in sorted({*expected, *found}):
        copies, due = found.get(place, []), expected.get(place)
        if due is None:
            yield f"{_name(place)}: in `events` as {copies[0]}, but no such event was expected"
        elif not copies:
            where = f"a dead letter ({Malformed(letters[place]).name})" if place in letters else "in no table"
            yield f"{_name(place)}: expected {due}, but it is {where}"
        elif len(copies) > 1:
            yield f"{_name(place)}: is {len(copies)} times in `events`, expected once as {due}"
        elif (copies[0].key, copies[0].money_nanos) != (due.key, due.money_nanos):
            yield f"{_name(place)}: expected {due}, but it is {copies[0]}"


def _letters_explained(records: Sequence[ExpectedRecords], letters: dict[Place, int]) -> Iterator[str]:
    """Yield what is wrong with dead letters, expected or found."""
    due = {
        (row["topic"], row["partition"], row["offset"]): int(row["malformed"])
        for source in records
        for row in source.malformed()
    }
    for place in sorted({*due, *letters}):
        want, have = due.get(place), letters.get(place)
        if want == have or not records:
            continue
        if have is None:
            yield f"{_name(place)}: malformed ({Malformed(want or 0).name}), but not among the dead letters"
        elif want is None:
            yield f"{_name(place)}: a dead letter ({Malformed(have).name}), but no malformed record was expected"
        else:
            yield f"{_name(place)}: a dead letter for {Malformed(have).name}, expected {Malformed(want).name}"


def _expected(
    wrong: Sequence[RollupDifference], records: Sequence[ExpectedRecords]
) -> dict[Place, EventFields]:
    pairs = np.array([row.key[0] << 32 | row.key[1] for row in wrong], np.uint64)
    rows = [source.of_publisher_minutes(pairs) for source in records]
    return {
        (row["topic"], row["partition"], row["offset"]): EventFields(
            tuple(int(row[name]) for name in ROLLUP_KEY), int(row["money_nanos"]), int(row["label"])
        )
        for row in np.concatenate([*rows, np.zeros(0, EXPECTED)])
    }


def _in_publisher_minutes(wrong: Sequence[RollupDifference]) -> str:
    pairs = sorted({row.key[:2] for row in wrong})
    listed = ", ".join(f"({publisher:d}, {minute:d})" for publisher, minute in pairs)
    publishers = ", ".join(str(publisher) for publisher in sorted({publisher for publisher, _ in pairs}))
    return (
        f"publisher_id IN ({publishers}) "
        f"AND (publisher_id, toUnixTimestamp(toStartOfMinute(event_time))) IN ({listed})"
    )


def _at_places(places: Sequence[Place]) -> str:
    listed = ", ".join(
        f"({topic:d}, {lane:d}, {offset:d})" for topic, lane, offset in places[:EXPLANATIONS_MAX]
    )
    return f"(topic, lane, offset) IN ({listed})"


def _events(
    client: QueryClient, tables: TableNames, class_code: str, where: str
) -> dict[Place, list[EventFields]]:
    found: dict[Place, list[EventFields]] = {}
    for topic, lane, offset, *key, money in client.execute(
        "SELECT topic, lane, offset, publisher_id, toUnixTimestamp(toStartOfMinute(event_time)), event_type_code, "
        f"{class_code}, currency_code, money_nanos FROM {tables('events')} WHERE {where}"
    ):
        found.setdefault((topic, lane, offset), []).append(EventFields(tuple(key), money))
    return found


def _dead_letters(client: QueryClient, tables: TableNames) -> dict[Place, int]:
    rows = client.execute(f"SELECT topic, lane, offset, reason_code FROM {tables('dead_letters')}")
    return {(topic, lane, offset): reason for topic, lane, offset, reason in rows}


def _name(place: Place) -> str:
    topic, lane, offset = place
    return f"topic {topic}, partition {lane}, offset {offset:,}"
