"""What a look-up by event id, user or address reads of 30 days of events, on a merged table.

    ADLEDGER_LOOKUP_ROWS=30000000 python -m pytest -q -s tests/benchmarks/bench_lookups.py

300 million rows in 30 days want some 30 GB of disk and 10 minutes; the share that is read falls as rows grow, since false positives
of the bloom filters (0.2 %) are a share of all granules, and what is found is not.
"""

import os
import time
from pathlib import Path

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.schemas.migrate import migrate
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.lookups import LOOKUPS, granules_read, insert_days

ROWS = int(os.environ.get("ADLEDGER_LOOKUP_ROWS", "3000000"))


@pytest.mark.benchmark
@pytest.mark.timeout(3_600)
def test_bench_lookups(tmp_path: Path):
    """Print the figures; no time is asserted."""
    with EmbeddedServer.start(tmp_path / "clickhouse") as server:
        client = connect(ServerAddress(server.host, server.port, server.http_port))
        migrate(client, database="adledger", release="bench")
        began = time.monotonic()
        insert_days(client, "adledger", ROWS)
        print(f"\n{ROWS:,} events in 30 days, written in {time.monotonic() - began:.0f} s")
        for name, condition in LOOKUPS.items():
            read, of = granules_read(client, "adledger", condition)
            began = time.monotonic()
            sql = f"SELECT count() FROM adledger.events WHERE {condition}"
            ((found,),) = client.execute(sql)
            took = time.monotonic() - began
            print(
                f"  by {name:<9}{found:6,} found, {read:6,} of {of:,} granules read: {100 * read / of:.2f} %, {took:.2f} s"
            )
        client.disconnect()
