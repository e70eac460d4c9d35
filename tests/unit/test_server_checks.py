"""The start-up guard of ClickHouse: what the protocol can't rely on is refused, each finding with its fix."""

from dataclasses import replace

import pytest

from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.sinks.checks import ServerFacts, TableFacts, findings
from adledger.sinks.insert_settings import insert_settings

CONSTRAINT = "CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by"
FSYNC = (
    "fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, "
    "min_compressed_bytes_to_fsync_after_merge = 1"
)
SETTINGS = f"{FSYNC}, min_free_disk_bytes_to_perform_insert = 268435456"
KEYS = {
    "events": "toYYYYMMDD(lane_clock)", "dead_letters": "toYYYYMMDD(lane_clock)",
    "rollup_minute": "toYYYYMMDD(clock_day)", "ledger": "toYYYYMMDD(clock_after)",
}  # fmt: skip


def table(name: str, **changed: str) -> TableFacts:
    fit = TableFacts(
        "MergeTree", f"MergeTree SETTINGS {SETTINGS}", KEYS[name], f"PROJECTION by_lane, {CONSTRAINT}"
    )
    return replace(fit, **changed)


FIT = ServerFacts(
    "26.9.1", "adledger", None, {name: table(name) for name in PROTOCOL_TABLES},
    {name: str(value) for name, value in insert_settings().items()},
)  # fmt: skip


def with_table(name: str, **changed: str) -> ServerFacts:
    return replace(FIT, tables={**FIT.tables, name: table(name, **changed)})


def test_a_migrated_server_has_no_findings():
    """A server as the migrations leave it, of the oldest release or a newer one, passes."""
    assert findings(FIT) == []
    assert findings(replace(FIT, version="25.8.0")) == []
    share = f"MergeTree SETTINGS {FSYNC}, min_free_disk_ratio_to_perform_insert = 0.05"
    assert findings(with_table("events", engine_full=share)) == []


def test_either_order_of_events_passes():
    """A new database's events are in the lane's order; older ones have a projection in that order."""
    ordered = f"{CONSTRAINT}) ENGINE = MergeTree ORDER BY (lane, batch_no, topic, offset)"
    assert findings(with_table("events", create_query=ordered)) == []


@pytest.mark.parametrize(
    ("facts", "message", "remedy"),
    [
        (replace(FIT, version="25.7.4"), "25.7.4 is older than 25.8, the oldest supported; the newest tested is 26.9", "25.8 or newer, e.g. 26.9"),
        (replace(FIT, version="9.12.1"), "older", "upgrade"),
        (
            replace(FIT, settings={**FIT.settings, "async_insert": "1"}),
            "async_insert is 1 where the sink sends 0",
            "lift the constraint on async_insert",
        ),
        (
            replace(FIT, settings={**FIT.settings, "max_partitions_per_insert_block": "100"}),
            "max_partitions_per_insert_block",
            "lift the constraint",
        ),
        (replace(FIT, tables={**FIT.tables, "x": table("events")}, cluster="c"), "cluster is c", "set cluster"),
        (with_table("ledger", engine="ReplicatedMergeTree"), "cluster is not set", "set cluster"),
        (with_table("events", create_query="PROJECTION by_lane"), "no deadline", "ALTER TABLE adledger.events ADD"),
        (with_table("events", create_query=CONSTRAINT), "not ordered by lane, and has no projection by_lane", "migrate into a database"),
        (with_table("ledger", partition_key="toYYYYMM(clock_after)"), "not atomic", "migrate into a database"),
        (
            with_table("dead_letters", engine_full=f"MergeTree SETTINGS {SETTINGS.replace(FSYNC, FSYNC[:-1] + '0')}"),
            "does not fsync",
            "MODIFY SETTING min_compressed_bytes_to_fsync_after_merge = 1",
        ),
        (with_table("events", engine_full=f"MergeTree TTL x SETTINGS {SETTINGS}"), "has a TTL", "REMOVE TTL"),
        (
            with_table("events", engine_full=f"MergeTree SETTINGS {FSYNC}"),
            "until its disk is full",
            "MODIFY SETTING min_free_disk_bytes_to_perform_insert = 268435456",
        ),
        (
            with_table("events", engine_full=f"MergeTree SETTINGS {FSYNC}, min_free_disk_bytes_to_perform_insert = 0"),
            "until its disk is full",
            "MODIFY SETTING",
        ),
        (replace(FIT, tables={}), "no table adledger.events", "adledger migrate"),
    ],
)  # fmt: skip
def test_each_defect_is_found_with_its_fix(facts: ServerFacts, message: str, remedy: str):
    """Each finding says what is wrong, and the statement or command that fixes it."""
    first = findings(facts)[0]
    assert message in first.message
    assert remedy in first.remedy
