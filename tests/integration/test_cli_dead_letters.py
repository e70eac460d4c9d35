"""`adledger dead-letters`, on the real engine: field, found and allowed of every kind, counted by field and publisher."""

import asyncio
import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.cli.app import app
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.schemas.wire import DEAD_LETTER_BYTES_MAX, Malformed, currency_code
from adledger.sinks.clickhouse import ClickHouseSink
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.sink import Stamp
from tests.support.one_record import GOOD, raw, text_of, without
from tests.support.wire_texts import CLICK, IMPRESSION, LANE, LOG_TIME, PARTITIONS
from tests.unit.test_decode_malformed import MALFORMED

BY_NAME = {name: value for name, (reason, value) in MALFORMED.items() if reason != Malformed.WRONG_TOPIC}
LANES = {"every kind": 1, "counted": 2, "older": 3, "empty": 4}
BATCH_KEY = f"record batch of 90 bytes, sha256 {sha256(bytes(90)).hexdigest()}".encode()
COUNTED = [
    *[text_of(IMPRESSION, price_micros="1", publisher_id=7)] * 3,
    text_of(IMPRESSION, price_micros=1.5, publisher_id=8),
    text_of(IMPRESSION, price_micros=-1, publisher_id=7),
    without(IMPRESSION | {"publisher_id": 7}, "ip"),
    text_of(IMPRESSION, publisher_id=7)[:300],
    b"\x1b[2Jhello",
    text_of(CLICK, publisher_id=9),
]
"""In ad.impressions."""


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["dead-letters", *arguments])
    assert result.exception is None, result.exception
    return result


def lines_of(text: str) -> list[list[str]]:
    """Return the cells of a table's lines."""
    return [[cell for cell in line.split("  ") if cell] for line in text.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        server = ServerAddress(running.host, running.port, running.http_port)
        with pytest.MonkeyPatch.context() as patch:
            address = f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}"
            patch.setenv("ADLEDGER_CLICKHOUSE", address)
            assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
            asyncio.run(_fill(ClickHouseSink(server)))
            yield


async def _fill(sink: ClickHouseSink) -> None:
    context = DecodeContext(LANE, PARTITIONS, (1, 2), currency_code("USD"))

    async def write(lane: int, values: list[bytes | None], reasons: list[int], records: int = 1) -> None:
        at = np.arange(len(values))
        await sink.insert(
            "dead_letters",
            {
                "topic": np.zeros(len(at), "u1"), "offset": at, "log_time": np.full(len(at), LOG_TIME),
                "lane_clock": np.full(len(at), LOG_TIME), "reason_code": np.array(reasons, "u1"),
                "key": [BATCH_KEY] * len(at),
                "value": [value and value[:DEAD_LETTER_BYTES_MAX] for value in values], "records": np.full(len(at), records, "u4"),
            },
            Stamp(lane, 1, 4_000_000_000),
        )  # fmt: skip

    def reason(value: bytes | None) -> int:
        found = decode_plain(value, None, 1, LOG_TIME, context)
        assert isinstance(found, Malformed)
        return int(found)

    values = list(BY_NAME.values())
    await write(LANES["every kind"], values, [reason(value) for value in values])
    await write(LANES["counted"], list(COUNTED), [reason(value) for value in COUNTED])
    older = [text_of(IMPRESSION, width=None, publisher_id=5), raw(IMPRESSION, "page_url", rb'"\ud800"')]
    await write(LANES["older"], older, [Malformed.WRONG_TYPE, Malformed.NOT_JSON])
    await write(LANES["older"] + 10, [GOOD], [Malformed.REJECTED_EARLIER])
    await write(LANES["older"] + 20, [b"\0" * 90], [Malformed.UNDECODABLE_BATCH], records=12)
    await sink.close()


def listed(lane: int, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("list", "--partition", str(lane), "--json", *options).stdout)
    return found


def test_every_kind_of_malformed_record_is_explained():
    """For each, as a list and one by one: what was found and what is allowed, bounded and printable."""
    letters = listed(LANES["every kind"], "--limit", "1000")["dead_letters"]
    assert len(letters) == len(BY_NAME)
    of_a_field = {
        "repeated_key",
        "missing_field",
        "wrong_type",
        "out_of_range",
        "wrong_topic",
        "from_the_future",
    }
    for letter in letters:
        assert letter["found"], letter
        assert letter["allowed"]
        assert bool(letter["field"]) == (letter["reason"] in of_a_field), letter
        assert letter["found"].isprintable()
        assert len(letter["found"]) < 200
        assert not letter["accepted_by_this_release"]
    shown = run("list", "--partition", str(LANES["every kind"]), "--limit", "1000").stdout
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.parametrize(
    "name", ["400 digits", "a key twice", "NUL byte in a string", "over 16 KiB", "from the future"]
)
def test_one_is_shown_with_its_field(name):
    """`show` names the same three things, then the publisher, batch and bytes."""
    number = list(BY_NAME).index(name)
    where = ("show", "ad.impressions", str(LANES["every kind"]), str(number))
    letter = json.loads(run(*where, "--json").stdout)
    text = run(*where).stdout.splitlines()
    assert f"found     {letter['found']}" in text
    assert f"allowed   {letter['allowed']}" in text
    assert (f"field     {letter['field']}" in text) == bool(letter["field"])
    assert (f"publisher {letter['publisher_id']}" in text) == (letter["publisher_id"] is not None)


def test_faults_are_counted_by_reason_field_and_publisher():
    """Records are counted by all three, the most frequent first; a publisher that can't be read is a dash."""
    found = listed(LANES["counted"], "--limit", "1")
    assert (len(found["dead_letters"]), found["examined"]) == (1, len(COUNTED))
    faults = [(f["records"], f["reason"], f["field"], f["publisher_id"]) for f in found["faults"]]
    assert faults == [
        (3, "wrong_type", "price_micros", 7), (1, "missing_field", "ip", 7), (1, "not_json", "", None),
        (1, "not_json", "", 7), (1, "out_of_range", "price_micros", 7), (1, "wrong_topic", "event_type", 9),
        (1, "wrong_type", "price_micros", 8),
    ]  # fmt: skip
    assert found["faults"][0]["allowed"] == "an integer from 0 to 1,000,000,000"
    result = run("list", "--partition", str(LANES["counted"]))
    table = result.stdout.split("\n\n")[1]
    assert table.splitlines()[0].split() == ["records", "reason", "field", "publisher", "allowed"]
    first, *_, clicks, last = [[cell.strip() for cell in cells] for cells in lines_of(table)[1:]]
    assert first == ["3", "wrong_type", "price_micros", "7", "an integer from 0 to 1,000,000,000"]
    assert clicks == ["1", "wrong_topic", "event_type", "9", "only impressions in this topic"]
    assert last[3] == "8"
    assert "wrong_type: 4" in result.stderr


def test_the_list_shows_what_was_found():
    """Each line has the field, what was found in it and the publisher; control characters are escaped."""
    text = run("list", "--partition", str(LANES["counted"])).stdout.split("\n\n")[0]
    header, *rows = text.splitlines()
    assert header.split() == [
        "topic",
        "partition",
        "offset",
        "records",
        "log",
        "time",
        "reason",
        "field",
        "found",
        "publisher",
    ]
    assert sum("price_micros" in row and '"1"' in row for row in rows) == 3
    assert any("\\x1b[2Jhello" in row for row in rows)
    assert "\x1b" not in text


def test_a_reason_counts_alone():
    """--reason selects what is counted too."""
    found = listed(LANES["counted"], "--reason", "wrong_type")
    assert [(f["records"], f["reason"]) for f in found["faults"]] == [(3, "wrong_type"), (1, "wrong_type")]
    assert found["examined"] == 4


def test_an_older_releases_dead_letters():
    """The stored reason stays; what this release would accept is said, and what it refuses has its field."""
    by_offset = {letter["offset"]: letter for letter in listed(LANES["older"])["dead_letters"]}
    assert (by_offset[0]["reason"], by_offset[0]["field"], by_offset[0]["accepted_by_this_release"]) == (
        "wrong_type",
        "",
        True,
    )
    assert by_offset[0]["publisher_id"] == 5
    assert (by_offset[1]["reason"], by_offset[1]["field"], by_offset[1]["accepted_by_this_release"]) == (
        "not_json", "page_url", False,
    )  # fmt: skip
    for lane, offset in ((LANES["older"], 0), (LANES["older"] + 10, 0)):
        assert "this release accepts it" in run("show", "ad.impressions", str(lane), str(offset)).stdout
    assert "this release accepts it" in run("list", "--partition", str(LANES["older"])).stdout


def test_a_batch_that_can_not_be_decoded():
    """It has no field: its size and digest are what was found, and it counts as the records that it covers."""
    found = listed(LANES["older"] + 20)
    (letter,) = found["dead_letters"]
    assert letter["found"] == f"a {BATCH_KEY.decode()}"
    assert letter["allowed"] == "a whole batch of at most 64 MiB and 262,144 records"
    assert found["faults"] == [
        {"reason": "undecodable_batch", "field": "", "publisher_id": None, "allowed": letter["allowed"], "records": 12}
    ]  # fmt: skip


def test_no_dead_letters():
    """Two tables without rows, and a line that says so."""
    result = run("list", "--partition", str(LANES["empty"]))
    assert result.stderr == "no dead letters\n"
    assert listed(LANES["empty"]) == {"counts": {}, "faults": [], "examined": 0, "dead_letters": []}
