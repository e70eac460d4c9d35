"""iPinYou's and TalkingData's logs, on samples made after their public descriptions."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.formats import FormatChoice, reader_of
from adledger.pipeline.importing.records import ParsedRecord
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.schemas.wire import EventType, Malformed, currency_code

FIELDS = [
    "e3d962536ef3ac7096b31fdd1c1c24b0", "20130606000104308", "1", "35605620124122340227135",
    "Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1; WOW64; Trident/5.0)", "118.81.189.*", "15", "16", "2",
    "e80f4ec7c01cd1a049", "hz55b0000000000000003d6f275121", "null", "2147689_8764813", "300", "250", "SecondView",
    "Fixed", "0", "e39e178ffd1ee56bcd", "753", "15", "a8be178ffd1ee56bcd", "2345", "123,5678,3456",
]  # fmt: skip
TD_HEADER = b"ip,app,device,os,channel,click_time,attributed_time,is_attributed"
TD_ROW = b"87540,12,1,13,497,2017-11-07 09:30:38,,0"


def line(**changed: str) -> bytes:
    names = {"bid": 0, "time": 1, "type": 2, "user": 3, "agent": 4, "ip": 5, "url": 10, "paid": 20}
    fields = list(FIELDS)
    for name, value in changed.items():
        fields[names[name]] = value
    return "\t".join(fields).encode()


def one(format_name: str, *lines: bytes) -> tuple[ParsedRecord, dict[str, Any]]:
    [record] = reader_of(FormatChoice(name=format_name)).parse(list(lines), 1)
    return record, orjson.loads(record.value)


def statuses(records: list[ParsedRecord]) -> list[int]:
    """Classify the records as the pipeline does."""
    found = []
    for record in records:
        refs = RecordRefs.of([record.value], [record.key], log_times=[4_000_000_000_000])
        kinds = (int(record.event_type),)
        context = DecodeContext(0, 1, kinds, currency_code("USD"))
        found += decode(refs, context).status.tolist()
    return found


def test_an_ipinyou_impression():
    """Each column becomes the field that the format's description says."""
    record, event = one("ipinyou", line())
    assert (record.event_type, record.key) == (EventType.IMPRESSION, b"35605620124122340227135")
    assert event == {
        "event_type": "impression", "event_id": f"ipy-{FIELDS[0]}",
        "event_time": 1_370_448_064_308,  # 2013-06-06 00:01:04.308 in China, 16:01:04.308 the day before in UTC
        "publisher_id": xxhash.xxh64_intdigest(FIELDS[9].encode()) % 2**32, "site_id": xxhash.xxh64_intdigest(FIELDS[9].encode()) % 2**32,
        "campaign_id": 2345, "advertiser_id": 2345, "creative_id": xxhash.xxh64_intdigest(FIELDS[18].encode()) % 2**32,
        "placement_id": xxhash.xxh64_intdigest(FIELDS[12].encode()) % 2**32, "user_id": FIELDS[3], "ip": "118.81.189.1",
        "user_agent": FIELDS[4], "page_url": FIELDS[10], "price_micros": 150_000, "currency": "CNY", "country": "CN",
        "width": 300, "height": 250,
    }  # fmt: skip
    assert record.event_time == event["event_time"]
    assert statuses([record]) == [Malformed.OK]


def test_an_ipinyou_click_names_its_impression():
    """A click has the same bid, another id and no price of its own, and is valid on the wire."""
    _, impression = one("ipinyou", line())
    record, click = one("ipinyou", line(type="2"))
    assert record.event_type == EventType.CLICK
    assert click["impression_id"] == impression["event_id"] != click["event_id"]
    assert click["price_micros"] == 0
    assert statuses([record]) == [Malformed.OK]


def test_ipinyou_absent_values_and_conversions():
    """`null` means absent: without a user the address is the key; a conversion is not an ad event."""
    record, event = one("ipinyou", line(user="null", agent="null", url="null"))
    assert (event["user_id"], event["user_agent"], event["page_url"]) == ("", "", "")
    assert record.key == b"118.81.189.1"
    assert reader_of(FormatChoice(name="ipinyou")).parse([line(type="3"), b"", b"  "], 1) == []


@pytest.mark.parametrize(
    "odd",
    [
        line(time="2013"), line(time="20131306000104308"), line(type="4"), line(paid="1.5"), line(bid="null"),
        b"\t".join([b"x"] * 23), b"no tabs", line(user="\x00").replace(b"\x00", b"\xff"),
    ],
)  # fmt: skip
def test_unreadable_ipinyou_lines(odd: bytes):
    """They are written unchanged, without a key, and count as malformed."""
    [record] = reader_of(FormatChoice(name="ipinyou")).parse([odd], 1)
    assert record[:4] == ParsedRecord(EventType.IMPRESSION, None, None, odd)[:4]
    assert record.problem
    assert record.line == 1
    assert statuses([record]) != [Malformed.OK]


def test_a_talkingdata_click():
    """Every row is a click: the channel is the publisher, the app the advertiser, the address a consumer's."""
    record, event = one("talkingdata", TD_HEADER, TD_ROW)
    assert (record.event_type, event["event_type"]) == (EventType.CLICK, "click")
    assert event["event_time"] == 1_510_047_038_000
    assert (event["publisher_id"], event["campaign_id"], event["advertiser_id"]) == (497, 12, 12)
    assert event["ip"] == "126.1.85.244"
    assert (event["event_id"], event["impression_id"]) == ("td-1", "td-1-i")
    assert record.key == event["user_id"].encode()
    assert statuses([record]) == [Malformed.OK]


def test_talkingdatas_test_set_brings_its_own_ids():
    """Its first column is click_id, and it has no attribution."""
    _, event = one(
        "talkingdata", b"click_id,ip,app,device,os,channel,click_time", b"7,1,2,1,3,4,2017-11-10 04:00:00"
    )
    assert event["event_id"] == "td-7"


def test_unreadable_talkingdata_rows_and_incomplete_headers():
    """A row of another width or with text for a number is kept unchanged; a header that lacks a column ends the import."""
    parsed = reader_of(FormatChoice(name="talkingdata")).parse(
        [TD_HEADER, b"1,2,3", TD_ROW.replace(b"12", b"x"), TD_ROW], 1
    )
    assert [r.key is None for r in parsed] == [True, True, False]
    assert orjson.loads(parsed[2].value)["event_id"] == "td-3"
    with pytest.raises(UsageError, match="lacks os, channel"):
        reader_of(FormatChoice(name="talkingdata")).parse([b"ip,app,device,click_time"], 1)


@given(st.lists(st.binary(max_size=60).filter(lambda b: b"\n" not in b)))
def test_no_line_stops_either_format(lines: list[bytes]):
    """Bad input is data."""
    reader_of(FormatChoice(name="ipinyou")).parse(lines, 1)
    reader_of(FormatChoice(name="talkingdata")).parse([TD_HEADER, *lines], 1)


def test_both_are_imported_from_files(tmp_path: Path):
    """A second run of `adledger import` gives the same ids, so it bills nothing."""
    path = tmp_path / "imp.txt"
    path.write_bytes(b"\n".join([line(), line(type="2"), line(bid="b2")]) + b"\n")
    twice = [
        [r.value for r in reader_of(FormatChoice(name="ipinyou")).parse(path.read_bytes().split(b"\n"), 1)]
        for _ in range(2)
    ]
    assert twice[0] == twice[1]
    assert len(np.unique(twice[0])) == 3
