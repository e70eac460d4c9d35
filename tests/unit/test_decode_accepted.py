"""What is decodable and to what, case by case: every decision of the wire contract that accepts a record."""

import json

import pytest

from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.pipeline.stages.plain_hashes import partition_of, xxh64
from adledger.schemas import wire
from adledger.schemas.wire import Flag, Malformed
from tests.support.one_record import (
    CLICKS,
    CONTEXT,
    GOOD,
    KEY,
    OPTIONAL,
    REQUIRED,
    decode_one,
    nest,
    raw,
    text_of,
)
from tests.support.wire_texts import CLICK, IMPRESSION, LANE, LOG_TIME, PARTITIONS


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", 0xFFFF_0102_0304),
        ("0.0.0.0", 0xFFFF_0000_0000),
        ("255.255.255.255", 0xFFFF_FFFF_FFFF),
        ("::ffff:1.2.3.4", 0xFFFF_0102_0304),
        ("::FFFF:102:304", 0xFFFF_0102_0304),
        ("::", 0),
        ("::1", 1),
        ("1::", 1 << 112),
        ("2001:0db8:0000:0000:0000:ff00:0042:8329", 0x20010DB8_00000000_0000FF00_00428329),
        ("2001:db8::ff00:42:8329", 0x20010DB8_00000000_0000FF00_00428329),
        ("1:2:3:4:5:6:7::", 0x00010002_00030004_00050006_00070000),
        ("::2:3:4:5:6:7:8", 0x00000002_00030004_00050006_00070008),
        ("1:2:3:4:5:6:1.2.3.4", 0x00010002_00030004_00050006_01020304),
    ],
)
def test_addresses(text, address):
    """Law: an address is stored as IPv6, IPv4 as ::ffff:a.b.c.d, whichever way it was written."""
    event = decode_one(text_of(IMPRESSION, ip=text))[1]
    assert event["ip_hi"] << 64 | event["ip_lo"] == address


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2023-11-14T22:13:20Z", LOG_TIME),
        ("2023-11-14t22:13:20.123z", LOG_TIME + 123),
        ("2023-11-14 22:13:20.9Z", LOG_TIME + 900),
        ("2023-11-15T07:13:20.000999999999999999+09:00", LOG_TIME),
        ("2023-11-14T18:43:20-03:30", LOG_TIME),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2000-01-01T00:00:00Z", wire.EVENT_TIME_MS_MIN),
        ("2023-11-14T22:13:20+0000", LOG_TIME),
        ("2023-11-14T22:13:20+00:00", LOG_TIME),
        ("2023-11-14T22:13:20.123-0000", LOG_TIME + 123),
        ("2023-11-14 18:43:20-0330", LOG_TIME),
        ("2023-11-15T22:12:20.5+2359", LOG_TIME + 500),
        ("2017-01-01T08:59:60+0900", 1_483_228_800_000),
    ],
)
def test_times_as_text(text, ms):
    """Law: RFC 3339 event times are truncated to milliseconds."""
    assert decode_one(text_of(IMPRESSION, event_time=text))[1]["event_time"] == ms


def test_all_columns():
    """Law: each field is in its column."""
    reason, event = decode_one(text_of(CLICK, ip="2001:db8::1"), topic=CLICKS)
    assert reason == Malformed.OK
    assert event == {
        "event_type_code": 2, "event_time": LOG_TIME, "publisher_id": 399_999, "site_id": 220_153, "campaign_id": 0,
        "creative_id": 2**32 - 1, "advertiser_id": 29, "placement_id": 28, "id_hash": xxh64(b"c-1"),
        "user_hash": xxh64(b"u-14"), "ua_hash": xxh64(CLICK["user_agent"].encode()),
        "page_hash": xxh64(CLICK["page_url"].encode()), "impression_hash": xxh64(b"7ed4d57b1e2feb89"),
        "ip_hi": 0x20010DB8_00000000, "ip_lo": 1, "price_micros": 10**9, "currency_code": wire.currency_code("EUR"),
        "country_code": wire.country_code("DE"), "width_px": 300, "height_px": 65_535,
        "flags": 1 << Flag.HAS_WIDTH | 1 << Flag.HAS_HEIGHT | 1 << Flag.TEST,
        "user_agent": CLICK["user_agent"].encode(), "page_url": CLICK["page_url"].encode(),
    }  # fmt: skip


def test_absent_optional_fields():
    """Law: absent fields have their defaults, whatever the record before had; width 0 is not an absent width."""
    bare = {name: value for name, value in IMPRESSION.items() if name in REQUIRED}
    values = [text_of(IMPRESSION, is_prefetch=True), text_of(bare), text_of(bare, width=0, country="")]
    decoded = decode(RecordRefs.of(values, [KEY] * 3, log_times=[LOG_TIME] * 3), CONTEXT)
    columns = decoded.columns.take(slice(1, 3))
    assert columns.currency_code.tolist() == [CONTEXT.default_currency] * 2
    for name in ("placement_id", "country_code", "width_px", "height_px", "impression_hash"):
        assert getattr(columns, name).tolist() == [0, 0]
    assert columns.flags.tolist() == [0, 1 << Flag.HAS_WIDTH]


def test_strings_at_their_limits():
    """Law: lengths count unescaped UTF-8 bytes; the longest and the empty strings are accepted."""
    longest = {
        "event_id": "é" * 32,
        "user_id": "ü" * 32,
        "user_agent": '"\\' * 512,
        "page_url": "😀" * 512,
    }
    for ascii_only in (True, False):
        value = json.dumps(IMPRESSION | longest, ensure_ascii=ascii_only).encode()
        event = decode_one(value)[1]
        assert event["id_hash"] == xxh64(longest["event_id"].encode())
        assert event["page_url"] == longest["page_url"].encode()
        assert event["user_agent"] == longest["user_agent"].encode()
    event = decode_one(text_of(IMPRESSION, event_id="\0", user_id="", user_agent="", page_url=""))[1]
    assert event["user_hash"] == event["ua_hash"] == event["page_hash"] == xxh64(b"")
    assert event["user_agent"] == event["page_url"] == b""


@pytest.mark.parametrize(
    "unknown",
    [
        {"x": None}, {"": 0}, {"x": [1, {"a": [True]}]}, {"sdk": {"v": "1.2", "n": []}}, {"n" * 400: 1}, {"ü": "ü"},
        {"Event_id": 1}, {"x": -1.5e-3, "y": 1e22, "z": 10**30}, {f"n{i}": i for i in range(100)},
        {"x": "\ud800"}, {"x": {"\udc00": ["\ude00\ud83d"]}}, {"\udfff": 1}, {"x": 10**400}, {"x": [1, {"a": -(10**400)}]},
        {"country\ud800": "Germany", "n" * 40: "\ud800"},
    ],
)  # fmt: skip
def test_unknown_fields_are_ignored(unknown):
    """Law: fields that the contract does not name change nothing, at the start, at the end, or on both sides."""
    plain = decode_one(GOOD)
    assert decode_one(text_of(IMPRESSION | unknown)) == plain
    assert decode_one(text_of(unknown | IMPRESSION)) == plain
    assert decode_one(text_of({"before": 1} | IMPRESSION | unknown)) == plain


LITERALS = [
    b"1e400", b"-1E+400", b"1e99999999999999999999", b"0." + b"1" * 500, b"-" + b"9" * 12_000, b"1e-400",
    rb'"\ud800"', rb'"\uDBFF\uDBFF"', rb'"\udc00\ud800"', rb'["\ud83d",{"\udead":1e400}]',
]  # fmt: skip


@pytest.mark.parametrize("literal", LITERALS)
def test_what_no_double_and_no_unicode_text_holds_is_ignored_where_unknown(literal):
    """Law: a number of any size and half of a surrogate pair change nothing in an unknown field, on either path."""
    for name in ("x", "n" * 33, "impression_id"):
        assert decode_one(raw(IMPRESSION, name, literal)) == decode_one(GOOD)
        assert decode_one(raw({name: 0} | IMPRESSION, name, literal)) == decode_one(GOOD)


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_counts_as_absent(name):
    """Law: an optional field that is null is as one that is not there, wherever it is in the record."""
    bare = {n: v for n, v in IMPRESSION.items() if n != name}
    for event in (IMPRESSION | {name: None}, {name: None} | bare, bare | {name: None}):
        for style in ((",", ":"), (", ", ": "), (" ,\n", " : ")):
            assert decode_one(json.dumps(event, separators=style).encode()) == decode_one(text_of(bare))


def test_nulls_leave_nothing_behind():
    """Law: a null is absent whatever the record before had in its place, and the record after has its own."""
    nothing = dict.fromkeys(OPTIONAL)
    values = [GOOD, text_of(IMPRESSION | nothing), GOOD, text_of(nothing | IMPRESSION)]
    columns = decode(RecordRefs.of(values, [KEY] * 4, log_times=[LOG_TIME] * 4), CONTEXT).columns
    assert columns.currency_code.tolist() == [
        code := wire.currency_code("EUR"), CONTEXT.default_currency, code, code,
    ]  # fmt: skip
    assert columns.flags.tolist()[1] == 0
    assert columns.width_px.tolist() == [300, 0, 300, 300]


@pytest.mark.parametrize("text", ["de", "De", "dE", "DE"])
def test_a_country_in_any_case(text):
    """Law: a country's letters are stored as capitals."""
    for value in (
        text_of(IMPRESSION, country=text),
        raw(IMPRESSION, "country", b'"\\u%04x%b"' % (ord(text[0]), text[1].encode())),
    ):
        assert decode_one(value) == decode_one(GOOD)


LONG = {
    "user_agent": (wire.USER_AGENT_BYTES_MAX, Flag.UA_TRUNCATED),
    "page_url": (wire.PAGE_URL_BYTES_MAX, Flag.PAGE_TRUNCATED),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("last", ["x", "\n", "é", "€", "😀", "e\u0301"])
@pytest.mark.parametrize("before", range(-4, 2))
def test_long_texts_end_with_a_character(name, last, before):
    """Law: what is kept is the longest beginning that fits and ends with a character, escaped or not; its hash is of that,
    and the flag says that something is missing.
    """
    most, flag = LONG[name]
    text = "u" * (most + before) + last + "tail"
    kept = text.encode()[:most].decode("utf-8", "ignore").encode()
    plain = decode_one(GOOD)[1]
    for ascii_only in (True, False):
        value = json.dumps(IMPRESSION | {name: text}, ensure_ascii=ascii_only).encode()
        for spelled in (value, value[:-1] + b', "\\ud800": 1}'):  # the second on the slow path
            found = decode_one(spelled)[1]
            assert found[name] == kept
            assert most - 3 <= len(kept) <= most
            column = {"user_agent": "ua_hash", "page_url": "page_hash"}[name]
            assert found == plain | {name: kept, column: xxh64(kept), "flags": plain["flags"] | 1 << flag}


@pytest.mark.parametrize("name", LONG)
def test_a_text_at_its_limit_is_whole(name):
    """Law: up to the limit nothing is truncated or flagged; lengths are of the decoded text, however long its escapes."""
    most, _ = LONG[name]
    for text in ("x" * most, "é" * (most // 2), "😀" * (most // 4)):
        for ascii_only in (True, False):
            found = decode_one(json.dumps(IMPRESSION | {name: text}, ensure_ascii=ascii_only).encode())[1]
            assert found[name] == text.encode()
            assert found["flags"] == decode_one(GOOD)[1]["flags"]


@pytest.mark.parametrize("value", ["", 5, None, [], "x" * 99])
def test_an_impressions_impression_id_is_unknown(value):
    """Law: impression_id on an impression is ignored, whatever it is."""
    assert decode_one(text_of(IMPRESSION, impression_id=value)) == decode_one(GOOD)


def test_repeated_keys_inside_unknown_fields_are_ignored():
    """Law: only the record's own keys may not be repeated."""
    assert decode_one(raw(IMPRESSION, "x", b'{"a":1,"a":2,"\\u0061":{"b":1,"b":2}}')) == decode_one(GOOD)


def test_spelling():
    """Law: white space, order of fields and escapes are free."""
    plain = decode_one(GOOD)
    assert decode_one(json.dumps(IMPRESSION, indent="\t").encode()) == plain
    assert decode_one(json.dumps(IMPRESSION, separators=(",", ":")).encode()) == plain
    assert decode_one(b"\r\n\t " + GOOD + b"\n  ") == plain
    assert decode_one(text_of(dict(reversed(IMPRESSION.items())))) == plain
    assert decode_one(GOOD.replace(b"/", b"\\/")) == plain
    assert decode_one(GOOD.replace(b'"event_id"', rb'"\u0065vent_id"')) == plain
    assert decode_one(GOOD.replace(b'"impression"', rb'"\u0069mpression"')) == plain
    assert decode_one(GOOD.replace(b'"195', rb'"\u0031\u0039\u0035')) == plain
    assert decode_one(GOOD.replace(b'"EUR"', rb'"\u0045UR"')) == plain
    assert decode_one(GOOD.ljust(wire.RECORD_BYTES_MAX)) == plain
    assert decode_one(nest(64)) == plain


@pytest.mark.parametrize(
    ("changed", "key", "flags"),
    [
        ({}, KEY, []),
        ({}, None, [Flag.MISROUTED]),
        ({}, b"", [Flag.MISROUTED]),
        ({}, b"u-1", [Flag.MISROUTED]),
        ({}, b"u-15", [Flag.MISROUTED]),
        ({}, b"195.134.187.196", [Flag.MISROUTED]),
        ({"user_id": "ü\n"}, "ü\n".encode(), []),
        ({"user_id": "x" * 64}, b"x" * 64, []),
        ({"user_id": "x" * 64}, b"x" * 63 + b"y", [Flag.MISROUTED]),
        ({"user_id": ""}, b"195.134.187.196", [Flag.KEYED_BY_IP]),
        ({"user_id": ""}, b"195.134.187.197", [Flag.KEYED_BY_IP, Flag.MISROUTED]),
        ({"user_id": ""}, b"", [Flag.KEYED_BY_IP, Flag.MISROUTED]),
        ({"user_id": "", "ip": "2001:DB8:0::1"}, b"2001:DB8:0::1", [Flag.KEYED_BY_IP]),
        ({"user_id": "", "ip": "2001:DB8:0::1"}, b"2001:db8::1", [Flag.KEYED_BY_IP, Flag.MISROUTED]),
    ],
)
def test_keys(changed, key, flags):
    """Law: the key is user_id, or ip as sent where that is empty; a record with any other key is misrouted."""
    lane = partition_of(key or b"", PARTITIONS)
    context = DecodeContext(lane, PARTITIONS, CONTEXT.kinds, CONTEXT.default_currency)
    value = text_of(IMPRESSION | {"is_test": False, "width": 1, "height": 1} | changed)
    sized = 1 << Flag.HAS_WIDTH | 1 << Flag.HAS_HEIGHT
    assert decode_one(value, key, context=context)[1]["flags"] == sized | sum(1 << flag for flag in flags)


def test_the_right_key_in_another_lane():
    """Law: a record that is not in the partition of its key is misrouted."""
    for lane in range(PARTITIONS):
        context = DecodeContext(lane, PARTITIONS, CONTEXT.kinds, CONTEXT.default_currency)
        flags = decode_one(GOOD, context=context)[1]["flags"]
        assert bool(flags >> Flag.MISROUTED & 1) == (lane != LANE)
