"""Thirty days of events, and how much of them a look-up reads, by the server's own EXPLAIN."""

import re
from typing import Any

DAYS = 30
START_MS = 1_767_225_600_000
EVENTS_PER_USER, EVENTS_PER_ADDRESS = 30, 40

INSERT = """
INSERT INTO {database}.events
    (lane, batch_no, send_by, topic, offset, log_time, lane_clock, event_type_code, event_time, publisher_id, id_hash,
     user_hash, ua_hash, page_hash, ip_lo, price_micros, currency_code, class_code, money_nanos)
SELECT n % 16, {day} + 1, 4294967295, 0, n, t, t, 1, t, intHash32(n) % 400000, xxHash64(concat('e', toString(n))),
    xxHash64(concat('u', toString(intHash64(n * 3) % {users}))), n % 300, n % 20000,
    281470681743360 + intHash64(n * 7) % {addresses}, 1000, 14003, 1, 1000
FROM (SELECT number + {first} AS n, fromUnixTimestamp64Milli(toInt64({from_ms} + intDiv(number * 86400000, {count}))) AS t
      FROM numbers({count}))
"""

LOOKUPS = {
    "event id": "id_hash = xxHash64('e12345')",
    "user": "user_hash = xxHash64('u777')",
    "address": "ip_lo = 281470681743360 + 4242",
}
"""What is looked up -> the condition that the cookbook gives."""


def insert_days(client: Any, database: str, rows: int) -> None:
    """Insert events of 30 days, evenly; users and addresses come back on any day."""
    count = rows // DAYS
    for day in range(DAYS):
        client.execute(
            INSERT.format(
                database=database, day=day, first=day * count, count=count, from_ms=START_MS + day * 86_400_000,
                users=max(1_000, rows // EVENTS_PER_USER), addresses=max(5_000, rows // EVENTS_PER_ADDRESS),
            )
        )  # fmt: skip


def granules_read(client: Any, database: str, condition: str, table: str = "events") -> tuple[int, int]:
    """Return how many granules of `events` a look-up reads, and of how many, from EXPLAIN indexes = 1."""
    plan = client.execute(f"EXPLAIN indexes = 1 SELECT * FROM {database}.{table} WHERE {condition}")
    text = "\n".join(line for (line,) in plan)
    (of_events,) = [
        part for part in text.split("ReadFromMergeTree (")[1:] if part.startswith(f"{database}.events)")
    ]
    counts = [tuple(map(int, found)) for found in re.findall(r"Granules: (\d+)/(\d+)", of_events)]
    assert counts, text
    return counts[-1][0], max(of for _, of in counts)
