"""What odd but valid JSON costs: CPU seconds a MB of records, as a lane decodes them and on the slow path alone.

Each kind is measured at a quarter of the largest record and at the largest: a kind whose cost a MB grows with the record
is super-linear. (Brackets deeper than 1,024, orjson's own limit, cost more than those below it: they are measured in
Python, in linear time.) Records over the largest size are refused without a look at their bytes.
"""

import gc
import json
import time
from collections.abc import Callable, Iterator

import pytest

from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import decode
from adledger.pipeline.stages.slow_path import decode_plain
from adledger.schemas.wire import PAGE_URL_BYTES_MAX, RECORD_BYTES_MAX, USER_AGENT_BYTES_MAX
from tests.support.one_record import CONTEXT, IMPRESSIONS, KEY
from tests.support.wire_texts import IMPRESSION, LOG_TIME

RECORDS, RUNS = 100, 3
MB = 1_000_000

pytestmark = pytest.mark.benchmark


def with_unknown(literal: Callable[[int, int], str]) -> Callable[[int, int], bytes]:
    """Return what makes a record of `size` bytes with an unknown field; `literal(number, room)` is its value."""

    def make(number: int, size: int) -> bytes:
        head = json.dumps(IMPRESSION | {"event_id": f"{number:032x}"})[:-1]
        return f'{head}, "x": {literal(number, size - len(head) - 16)}}}'.encode()

    return make


def on_the_slow_path(record: bytes) -> bytes:
    """Return the same record with an escape in its type, which only the slow path reads."""
    return record.replace(b'"impression"', b'"\\u0069mpression"')


def members(number: int, room: int) -> str:
    """Return an object's members with names of their own, and without braces: to be fields of the record."""
    return "0" + "".join(f', "n{number}_{i:05}": 1' for i in range(room // 20))


def repeated(_: int, room: int) -> str:
    return "0" + "".join(f', "n{i:05}": 1' for i in range(room // 15 - 1)) + ', "n00000": 1'


def spaced(number: int, size: int) -> bytes:
    text = json.dumps(IMPRESSION | {"event_id": f"{number:032x}"}).encode()
    gaps = text.count(b", ") + text.count(b": ")
    pad = b" \t\n\r" * ((size - len(text)) // gaps // 4)
    return text.replace(b", ", b", " + pad).replace(b": ", b": " + pad)


def texts(agent: str, page: str) -> Callable[[int, int], bytes]:
    """Return what makes records whose user agent and page are as long as they may be, and new in each record."""

    def make(number: int, _: int) -> bytes:
        long_agent = (f"{number}" + agent * USER_AGENT_BYTES_MAX)[:USER_AGENT_BYTES_MAX]
        long_page = (f"https://{number}" + page * PAGE_URL_BYTES_MAX)[:PAGE_URL_BYTES_MAX]
        return json.dumps(IMPRESSION | {"user_agent": long_agent, "page_url": long_page}).encode()

    return make


KINDS: dict[str, Callable[[int, int], bytes]] = {
    "ordinary": lambda number, _: json.dumps(IMPRESSION | {"event_id": f"{number:032x}"}).encode(),
    "ordinary, slow path": lambda number, size: on_the_slow_path(KINDS["ordinary"](number, size)),
    "one long string": with_unknown(lambda _, room: '"' + "a" * room + '"'),
    "long escapes": with_unknown(lambda _, room: '"' + r"\u0041" * (room // 6) + '"'),
    "surrogate pairs": with_unknown(lambda _, room: '"' + r"\ud83d\ude00" * (room // 12) + '"'),
    "backslashes": with_unknown(lambda _, room: '"' + r"\\" * (room // 2) + '"'),
    "emoji": with_unknown(lambda _, room: '"' + "\U0001f600" * (room // 4) + '"'),
    "nested to the limit": with_unknown(lambda _, room: "[" + ",".join([62 * "[" + 62 * "]"] * (room // 125)) + "]"),
    "nested, slow path": lambda number, size: on_the_slow_path(KINDS["nested to the limit"](number, size)),
    "nested too deep": with_unknown(lambda _, room: "[" * (room // 2) + "]" * (room // 2)),
    "objects too deep": with_unknown(lambda _, room: '{"a":' * (room // 6) + "1" + "}" * (room // 6)),
    "brackets never closed": with_unknown(lambda _, room: "[" * room),
    "alternating brackets": with_unknown(lambda _, room: '[{"a":' * (room // 8) + "1" + "}]" * (room // 8)),
    "many numbers": with_unknown(lambda _, room: "[" + "1," * (room // 2) + "1]"),
    "giant numbers": with_unknown(lambda _, room: "[" + ",".join(["1" * 300] * (room // 301)) + "]"),
    "one giant number": with_unknown(lambda _, room: "1" * room),
    "long fractions": with_unknown(lambda _, room: "0." + "1" * room),
    "giant exponents": with_unknown(lambda _, room: "[" + ",".join(["1e-999999999"] * (room // 13)) + "]"),
    "unknown fields": with_unknown(members),
    "repeated key": with_unknown(repeated),
    "white space": spaced,
    "too large, one string": lambda _, __: b'{"event_type": "' + b"a" * MB + b'"}',
    "long user agents": texts("Mozilla/5.0 (X11) ", "a/"),
    "browsers' words": texts("Chrome/1 ", "%41"),
    "escaped user agents": texts("\t", "/"),
}  # fmt: skip
"""Kind -> a record by its number and size."""


def best(work: Callable[[], object]) -> float:
    """Return the CPU seconds of some work, the best of RUNS."""

    def runs() -> Iterator[float]:
        for _ in range(RUNS):
            began = time.thread_time()
            work()
            yield time.thread_time() - began

    return min(runs())


def costs(kind: str, size: int) -> tuple[float, float, int, str]:
    """Return CPU seconds a MB as a lane decodes records, and on the slow path alone; a record's bytes; what they are."""
    count = RECORDS if kind != "too large, one string" else 3
    values = [KINDS[kind](number, size) for number in range(count)]
    refs = RecordRefs.of(values, [KEY] * count, topics=[IMPRESSIONS] * count, log_times=[LOG_TIME] * count)
    megabytes = sum(map(len, values)) / MB
    lane = best(lambda: decode(refs, CONTEXT))
    slow = best(lambda: [decode_plain(value, KEY, 1, LOG_TIME, CONTEXT) for value in values])
    found = decode_plain(values[-1], KEY, 1, LOG_TIME, CONTEXT)
    return lane / megabytes, slow / megabytes, len(values[-1]), getattr(found, "name", "event")


def test_bench_odd_json():
    """Print the figures; no time is asserted."""
    gc.freeze()  # as a worker does at its start: otherwise nested records pay for collecting the whole process
    print(
        f"\n{'CPU ms a MB':<26}{'lane':>9}{'slow path':>11}   a quarter of the size: lane, slow path; us a record"
    )
    for kind in KINDS:
        lane, slow, size, found = costs(kind, RECORD_BYTES_MAX)
        lane_small, slow_small, *_ = costs(kind, RECORD_BYTES_MAX // 4)
        print(
            f"{kind:<26}{lane * 1e3:9.2f}{slow * 1e3:11.2f}{lane_small * 1e3:12.2f}{slow_small * 1e3:10.2f}"
            f"{lane * size:12.1f}   {size:,} bytes, {found}"
        )
