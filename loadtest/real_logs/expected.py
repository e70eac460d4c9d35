"""The ground truth of the two real logs: events.md's mapping in plain Python, line by line.

It shares no code with the importers, the stages or the generator's kernels: it is the independent check.
"""

import csv
import gzip
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adledger.loadtest.traffic.ground_truth import EXPECTED
from adledger.loadtest.traffic.kernels.shapes import Records
from adledger.schemas.classes import Class
from adledger.schemas.wire import Malformed, currency_code

PRICE_NANOS = 1_000_000
CLICK_NANOS = 500_000_000
CLICK_DELAY_MS = 2_000
ALLOWED_LATENESS_MS = 24 * 3_600_000
IMPRESSIONS, CLICKS = 0, 1
SHOP, SITE = 1, 2
"""Publishers: the shop of open_bandit_women.csv, the site of apache_access.log."""

_HIT = re.compile(
    r'(?P<ip>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?:[^"\\]|\\.)*" \d{3} \S+ "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*"\s*'
)


class RealEvent(NamedTuple):
    """One record of a real log. `key` is None where the line can't be read; then only its position counts."""

    topic: int
    publisher_id: int
    event_id: str
    event_time: int  # ms
    key: bytes | None
    money_nanos: int


def expected_of_files(files: Sequence[tuple[str, Path]], partitions: int, currency: str) -> Records:
    """Return what is expected (EXPECTED) of files imported one after the other into an empty log.

    `files` are (format, path), the format access-log or open-bandit; a path may end in .gz.
    """
    readers = {"access-log": access_log, "open-bandit": open_bandit}
    lanes = _Lanes(partitions, currency_code(currency))
    rows = [lanes.expect(event) for kind, path in files for event in readers[kind](read_text(path))]
    return np.array(rows, EXPECTED)


def read_text(path: Path) -> str:
    """Return a file's text, unpacked."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "surrogateescape")


def access_log(text: str) -> Iterator[RealEvent]:
    """Each hit is an impression of publisher 2, keyed by its address; a line that can't be read is malformed."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        hit = _HIT.fullmatch(line)
        if hit is None:
            yield RealEvent(IMPRESSIONS, 0, "", 0, None, 0)
            continue
        time = datetime.strptime(hit["time"], "%d/%b/%Y:%H:%M:%S %z")
        yield RealEvent(
            IMPRESSIONS, SITE, f"al-{number}", int(time.timestamp()) * 1000, hit["ip"].encode(), PRICE_NANOS
        )


def open_bandit(text: str) -> Iterator[RealEvent]:
    """Each row is an impression of publisher 1, and a click too where `click` is 1."""
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 1):
        features = "|".join(row[f"user_feature_{n}"] for n in range(4))
        user = hashlib.md5(features.encode()).hexdigest().encode()  # noqa: S324 - an id, as events.md defines it
        moment = datetime.fromisoformat(row["timestamp"])
        time = int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
        yield RealEvent(IMPRESSIONS, SHOP, f"ob-{number}", time, user, PRICE_NANOS)
        if row["click"] == "1":
            yield RealEvent(CLICKS, SHOP, f"ob-{number}-c", time + CLICK_DELAY_MS, user, CLICK_NANOS)


class _Lanes:
    """The lanes of the events: offsets, watermarks, and ids seen."""

    def __init__(self, partitions: int, currency: int) -> None:
        self._partitions = partitions
        self._currency = currency
        self._offsets: Counter[tuple[int, int]] = Counter()
        self._clocks: Counter[int] = Counter()
        self._seen: dict[tuple[int, int, str], int] = {}

    def expect(self, event: RealEvent) -> tuple[int, ...]:
        """Put an event at the end of its lane; return its row of EXPECTED."""
        lane = 0 if event.key is None else (murmur2(event.key) & 0x7FFFFFFF) % self._partitions
        topic = event.topic
        offset = self._offsets[topic, lane]
        self._offsets[topic, lane] += 1
        if event.key is None:
            return (topic, lane, offset, 0, 0, 0, Class.MALFORMED, 0, 0, 0, 0, Malformed.NOT_JSON, 0)
        clock = self._clocks[lane] = max(self._clocks[lane], event.event_time)
        name = (topic, event.publisher_id, event.event_id)
        assert name not in self._seen, "line numbers are ids: no two are equal"
        self._seen[name] = clock
        verdict = Class.EXPIRED if clock - event.event_time > ALLOWED_LATENESS_MS else Class.BILLABLE
        minute = event.event_time // 60_000 * 60
        return (
            topic, lane, offset, event.publisher_id, minute, 1 + topic, verdict, self._currency,
            event.money_nanos, 0, 0, 0, 0,
        )  # fmt: skip


def murmur2(key: bytes) -> int:
    """Return the murmur2 of Kafka's Java client, as uint32."""
    mask = 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & mask
        k = (k ^ k >> 24) * 0x5BD1E995 & mask
        h = h * 0x5BD1E995 & mask ^ k
    if rest := key[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return h ^ h >> 15
