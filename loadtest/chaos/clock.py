"""The server's clock, moved ahead as far as the protocol can see it.

The engine reads the clock with its own code, which libfaketime does not replace. The protocol sees that clock in two
places, and both are moved: the deadline constraint of each table, and the answer to a query for the time.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adledger.loadtest.lab.proxied import ProxiedServers
from adledger.loadtest.lab.waiting import NotSeen
from adledger.pipeline.addresses import ServerAddress
from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.sinks.connection import connect

_CONSTRAINT = "toUnixTimestamp(nowInBlock()){} <= send_by"


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The clock before the jump and after it, in seconds since the epoch."""

    before: int
    after: int


@contextmanager
def ahead(
    servers: ProxiedServers, database: str, seconds: int, *, noticed_after_seconds: float = 0.0
) -> Iterator[ClockReading]:
    """Move the clock ahead within the block. Raises NotSeen where a client would not notice.

    Queries for the time still get the old one until `noticed_after_seconds` after the jump, as from a slow answer.
    """
    inserts = servers.proxies.inserts
    before = _asked(servers.clickhouse)
    began = time.monotonic()
    _constrain(servers, database, f" + {seconds:d}")
    time.sleep(noticed_after_seconds)
    inserts.clock_ahead_seconds = seconds
    try:
        after = _asked(servers.clickhouse)
        if after - before < seconds:
            raise NotSeen(f"the clock went from {before} to {after} in {time.monotonic() - began:.1f} s")
        yield ClockReading(before, after)
    finally:
        inserts.clock_ahead_seconds = 0
        _constrain(servers, database, "")


def drop_deadline(servers: ProxiedServers, database: str) -> None:
    """Drop the deadline constraint of every table of a database, for a control."""
    client = connect(servers.server.address)
    try:
        for table in PROTOCOL_TABLES:
            client.execute(f"ALTER TABLE {database}.{table} DROP CONSTRAINT in_time")
    finally:
        client.disconnect()


def _constrain(servers: ProxiedServers, database: str, more: str) -> None:
    client = connect(servers.server.address)
    try:
        for table in PROTOCOL_TABLES:
            # Not in one statement: it would check the new one's name against the old.
            client.execute(f"ALTER TABLE {database}.{table} DROP CONSTRAINT IF EXISTS in_time")
            client.execute(
                f"ALTER TABLE {database}.{table} ADD CONSTRAINT in_time CHECK {_CONSTRAINT.format(more)}"
            )
    finally:
        client.disconnect()


def _asked(address: ServerAddress) -> int:
    client = connect(address)
    try:
        return int(client.execute("SELECT toUnixTimestamp(now())")[0][0])
    finally:
        client.disconnect()
