"""The SQL of the sink's reads. Every number in it is an integer of our own, formatted into the text."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from adledger.pipeline.stages.identity import FINGERPRINTED
from adledger.schemas.classes import Class
from adledger.schemas.event_columns import EVENT_DTYPES, WINDOW_COLUMNS
from adledger.schemas.tables import LEDGER, PROTOCOL_TABLES

CLOCK_FROM = "fromUnixTimestamp64Milli({:d}, 'UTC')"

SERVER_TIME = "SELECT toUnixTimestamp(now())"

STORED_COLUMNS = ("topic", "offset", "log_time", "lane_clock", "class_code", "reasons", "judge_version")
"""Columns of `events` that StoredEvents has beside EVENT_DTYPES."""

REASON_COLUMNS = ("topic", "offset", "reason_code")
"""Columns of `dead_letters` that StoredReasons has."""

KEYED = ("event_type_code", "publisher_id", "id_hash")
"""What dedupe keys are made from."""

LEDGER_COLUMNS = ("lane", "batch_no", *LEDGER)

_TIMES = {"event_time", "log_time", "lane_clock", "cut_time", "clock_before", "clock_after"}


def ledger_end(database: str, lane: int) -> str:
    """Return the query for the lane's last ledger row: `LEDGER_COLUMNS`."""
    columns = ", ".join(read_column(name) for name in LEDGER_COLUMNS)
    return f"SELECT {columns} FROM {database}.ledger WHERE lane = {lane:d} ORDER BY batch_no DESC LIMIT 1"


def batch_rows(database: str, lane: int, batch_no: int) -> str:
    """Return the query for (table, rows) of one batch."""
    return " UNION ALL ".join(
        f"SELECT '{table}', count() FROM {database}.{table} WHERE lane = {lane:d} AND batch_no = {batch_no:d}"
        for table in PROTOCOL_TABLES
    )


def last_batches(database: str, lane: int, from_batch_no: int) -> str:
    """Return the query for (table, batch number) of every batch from `from_batch_no` on."""
    return " UNION ALL ".join(
        f"SELECT '{table}', batch_no FROM {database}.{table} "
        f"WHERE lane = {lane:d} AND batch_no >= {from_batch_no:d} GROUP BY batch_no"
        for table in PROTOCOL_TABLES
    )


def stored_events(database: str, lane: int, batch_no: int) -> str:
    """Return the query for the events of one batch: `STORED_COLUMNS`, then those of EVENT_DTYPES."""
    columns = ", ".join(read_column(name) for name in (*STORED_COLUMNS, *EVENT_DTYPES))
    return (
        f"SELECT {columns} FROM {database}.events WHERE lane = {lane:d} AND batch_no = {batch_no:d} "
        "ORDER BY lane, batch_no, topic, offset"
    )


def stored_reasons(database: str, lane: int, batch_no: int) -> str:
    """Return the query for why a batch's records are malformed: `REASON_COLUMNS`."""
    return (
        f"SELECT {', '.join(REASON_COLUMNS)} FROM {database}.dead_letters "
        f"WHERE lane = {lane:d} AND batch_no = {batch_no:d} ORDER BY lane, batch_no, topic, offset"
    )


def identities(database: str, lane: int, clock_from: int, before_batch_no: int) -> str:
    """Return the query for a lane's first event of each key, from a watermark (ms) on and before a batch, in no order.

    The columns: lane_clock, fingerprint, then `KEYED`.
    """
    columns = ", ".join((read_column("lane_clock"), fingerprint(), *KEYED))
    return f"SELECT {columns} {_firsts(database, lane, clock_from, before_batch_no)}"


def fingerprint() -> str:
    """Return the expression of a row's fingerprint (UInt32), bit for bit that of adledger.pipeline.stages.identity."""
    h = "toUInt64(0)"
    for name in FINGERPRINTED:
        h = f"intHash64(bitXor({h}, toUInt64({read_column(name)})))"
    return f"toUInt32(bitAnd({h}, {0xFFFFFFFF}))"


def identity_count(database: str, lane: int, clock_from: int, before_batch_no: int) -> str:
    """Return the query for roughly how many rows `identities` finds: the ledger's batches count as a whole."""
    return (
        f"SELECT sum(records_received - duplicate - malformed) FROM {database}.ledger WHERE lane = {lane:d} "
        f"AND batch_no < {before_batch_no:d} AND clock_after >= {CLOCK_FROM.format(clock_from)}"
    )


def last_record(database: str, lane: int, topic: int, before_batch_no: int, clock_from: int) -> str:
    """Return the query for the last record of a topic before a batch: batch_no, offset, log_time, id_hash, is_event.

    Only in the epoch of the lane's last ledger row, after the offsets that were last given up (there the log may have
    records that the tables lack), and from a watermark (ms) on.
    """
    ledger = f"FROM {database}.ledger WHERE lane = {lane:d}"
    epoch = f"SELECT epoch {ledger} ORDER BY batch_no DESC LIMIT 1"
    of_table = [
        f"SELECT batch_no, offset, {read_column('log_time')}, {id_hash} AS id_hash, {is_event} AS is_event "
        f"FROM {database}.{table} WHERE lane = {lane:d} AND topic = {topic:d} AND batch_no < {before_batch_no:d} "
        f"AND lane_clock >= {CLOCK_FROM.format(clock_from)} "
        f"AND batch_no >= (SELECT min(batch_no) {ledger} AND epoch = ({epoch})) "
        f"AND batch_no >= (SELECT max(batch_no) {ledger} AND lost > 0) "
        "ORDER BY lane DESC, batch_no DESC, topic DESC, offset DESC LIMIT 1"
        for table, id_hash, is_event in (("events", "id_hash", 1), ("dead_letters", "toUInt64(0)", 0))
    ]
    both = " UNION ALL ".join(f"SELECT * FROM ({one})" for one in of_table)
    return f"SELECT * FROM ({both}) ORDER BY batch_no DESC, offset DESC LIMIT 1"


def _firsts(database: str, lane: int, clock_from: int, before_batch_no: int) -> str:
    return (
        f"FROM {database}.events WHERE lane = {lane:d} AND batch_no < {before_batch_no:d} "
        f"AND lane_clock >= {CLOCK_FROM.format(clock_from)} AND class_code != {Class.DUPLICATE:d}"
    )


def rule_events(database: str, lane: int, clock_from: int, before_batch_no: int) -> str:
    """Return the query for the events of the rules' windows, in the lane's order: lane_clock, then WINDOW_COLUMNS."""
    columns = ", ".join(read_column(name) for name in ("lane_clock", *WINDOW_COLUMNS))
    return (
        f"SELECT {columns} FROM {database}.events WHERE lane = {lane:d} AND batch_no < {before_batch_no:d} "
        f"AND lane_clock >= {CLOCK_FROM.format(clock_from)} AND class_code != {Class.DUPLICATE:d} "
        "ORDER BY lane, batch_no, events.lane_clock, topic, offset"
    )


def clears(database: str, lane: int, batch_no: int) -> str:
    """Return the query for the number of overrides that remove the rows of a batch."""
    return (
        f"SELECT count() FROM {database}.lane_orders "
        f"WHERE lane = {lane:d} AND batch_no = {batch_no:d} AND notEmpty(leftover_table)"
    )


def running_inserts(database: str, lane: int, cluster: str | None) -> str:
    """Return the query for the query ids of the lane's inserts that run now, on every server of a cluster."""
    processes = (
        "system.processes" if cluster is None else f"clusterAllReplicas('{cluster}', system.processes)"
    )
    return (
        f"SELECT query_id FROM {processes} WHERE startsWith(query_id, '{insert_id_prefix(database, lane)}')"
    )


def kill_inserts(database: str, lane: int, cluster: str | None) -> str:
    """Return the query that tells the lane's inserts to end. It does not wait: one that waits for data ends late."""
    where = "" if cluster is None else f"ON CLUSTER {cluster}"
    return f"KILL QUERY {where} WHERE startsWith(query_id, '{insert_id_prefix(database, lane)}') ASYNC"


def insert_id_prefix(database: str, lane: int) -> str:
    """Return what the query ids of the lane's inserts begin with."""
    return f"adledger/{database}/{lane:d}/"


def insert(database: str, table: str, columns: list[str]) -> str:
    """Return the INSERT that the columns are sent with."""
    return f"INSERT INTO {database}.{table} ({', '.join(columns)}) VALUES"


def read_column(name: str) -> str:
    """Return the expression for a column as its stored number: the driver would turn times into dates."""
    return f"toUnixTimestamp64Milli({name})" if name in _TIMES else name
