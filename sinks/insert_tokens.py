"""Deduplication tokens, by which replicas drop an insert that repeats another. A single server gets none.

It logs tokens before it writes the part, so it would answer OK for rows that it does not have (docs/exactly-once.md).
"""

from adledger.pipeline.errors import InsertRefused, SinkError, SinkUnavailable
from adledger.sinks import queries
from adledger.sinks.overrides import CLEARED_TABLES, Rows
from adledger.sinks.sink import Stamp


async def insert_token(rows: Rows, database: str, table: str, stamp: Stamp) -> str:
    """Return the token of a batch's insert into a table. Raises SinkUnavailable, InsertRefused.

    It changes only when an override removes the batch's rows: replicas remember tokens of removed rows too, and would answer
    OK for others that they drop. Rows of the ledger are never removed, so its token never changes.
    """
    clears = await _clears(rows, database, table, stamp) if table in CLEARED_TABLES else 0
    token = f"{stamp.lane}/{stamp.batch_no}/{table}"
    return f"{token}/{clears}" if clears else token


async def _clears(rows: Rows, database: str, table: str, stamp: Stamp) -> int:
    """Return how many overrides remove a batch's rows. It is part of an insert, so a refusal refuses that one."""
    try:
        return int((await rows(queries.clears(database, stamp.lane, stamp.batch_no), {}))[0][0])
    except SinkUnavailable:
        raise
    except SinkError as error:
        raise InsertRefused(
            f"nothing was inserted into {table}: {error.message}", remedy=error.remedy
        ) from None
