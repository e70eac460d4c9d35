"""What is malformed and why, case by case: every decision of the wire contract that refuses a record."""

import json

import pytest

from adledger.schemas import wire
from adledger.schemas.wire import Malformed
from tests.support.one_record import (
    BOOLEANS,
    BOTH,
    GOOD,
    IMPRESSIONS,
    INTEGERS,
    OPTIONAL,
    REQUIRED,
    TEXTS,
    decode_one,
    nest,
    raw,
    text_of,
    without,
)
from tests.support.wire_texts import CLICK, IMPRESSION, LOG_TIME

MALFORMED = {
    "null value": (Malformed.TOMBSTONE, None),
    "empty value": (Malformed.TOMBSTONE, b""),
    "over 16 KiB": (Malformed.TOO_LARGE, GOOD.ljust(wire.RECORD_BYTES_MAX + 1)),
    "over 16 KiB of no JSON": (Malformed.TOO_LARGE, b"x" * (wire.RECORD_BYTES_MAX + 1)),
    "blank": (Malformed.NOT_JSON, b" \n"),
    "text": (Malformed.NOT_JSON, b"hello"),
    "truncated": (Malformed.NOT_JSON, GOOD[:-1]),
    "truncated in a string": (Malformed.NOT_JSON, GOOD[:100]),
    "two objects": (Malformed.NOT_JSON, GOOD + b"\n" + GOOD),
    "NUL bytes behind": (Malformed.NOT_JSON, GOOD + b"\0\0"),
    "NUL byte before": (Malformed.NOT_JSON, b"\0" + GOOD),
    "NUL byte in a string": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", b"Moz\0lla")),
    "newline in a string": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", b"Moz\nlla")),
    "byte order mark": (Malformed.NOT_JSON, b"\xef\xbb\xbf" + GOOD),
    "UTF-16": (Malformed.NOT_JSON, GOOD.decode().encode("utf-16")),
    "Latin-1": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", b"M\xf6zilla")),
    "overlong UTF-8": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", b"\xc0\xaf")),
    "surrogate in UTF-8": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", b"\xed\xa0\x80")),
    "beyond Unicode": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", b"\xf4\x90\x80\x80")),
    "lone high surrogate": (Malformed.OUT_OF_RANGE, GOOD.replace(b"Mozilla", rb"\ud83d")),
    "lone low surrogate": (Malformed.OUT_OF_RANGE, GOOD.replace(b"Mozilla", rb"\ude00")),
    "high surrogate and a letter": (Malformed.OUT_OF_RANGE, GOOD.replace(b"Mozilla", rb"\ud83d\u0041")),
    "two high surrogates": (Malformed.OUT_OF_RANGE, GOOD.replace(b"Mozilla", rb"\ud83d\ud83d\ude00")),
    "lone surrogate behind what is kept": (Malformed.OUT_OF_RANGE, raw(IMPRESSION, "user_agent", b'"%b\\ud800"' % (b"x" * 1_024))),
    "lone surrogate in a click's impression_id": (Malformed.OUT_OF_RANGE, raw(CLICK, "impression_id", rb'"\ud800"')),
    "lone surrogate in a country": (Malformed.OUT_OF_RANGE, raw(IMPRESSION, "country", rb'"\ud800D"')),
    "lone surrogate and a field absent": (Malformed.MISSING_FIELD, raw({n: v for n, v in IMPRESSION.items() if n != "site_id"}, "page_url", rb'"\ud800"')),
    "lone surrogate and a key twice": (Malformed.REPEATED_KEY, GOOD[:-1] + rb', "x": "\ud800", "x": 1}'),
    "a lone surrogate's key twice": (Malformed.REPEATED_KEY, GOOD[:-1] + rb', "\ud800": 1, "\uD800": 2}'),
    "lone surrogate in an array": (Malformed.NOT_AN_OBJECT, rb'["\ud800"]'),
    "surrogate in UTF-8 in an unknown field": (Malformed.NOT_JSON, raw(IMPRESSION, "x", b'"\xed\xa0\x80"')),
    "half an escape in an unknown field": (Malformed.NOT_JSON, raw(IMPRESSION, "x", rb'"\ud83d\ude"')),
    "unknown escape": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", rb"\x41")),
    "short escape": (Malformed.NOT_JSON, GOOD.replace(b"Mozilla", rb"\u41")),
    "NaN": (Malformed.NOT_JSON, raw(IMPRESSION, "price_micros", b"NaN")),
    "NaN in an unknown field": (Malformed.NOT_JSON, raw(IMPRESSION, "x", b"NaN")),
    "minus infinity": (Malformed.NOT_JSON, raw(IMPRESSION, "price_micros", b"-Infinity")),
    "minus infinity in an unknown field": (Malformed.NOT_JSON, raw(IMPRESSION, "x", b"-Infinity")),
    "1e400": (Malformed.WRONG_TYPE, raw(IMPRESSION, "price_micros", b"1e400")),
    "1e400 for a text": (Malformed.WRONG_TYPE, raw(IMPRESSION, "page_url", b"1e400")),
    "1e400 for a time": (Malformed.WRONG_TYPE, raw(IMPRESSION, "event_time", b"1e400")),
    "1e400 without a type and a field absent": (Malformed.MISSING_FIELD, b'{"site_id":1e400}'),
    "400 digits": (Malformed.OUT_OF_RANGE, raw(IMPRESSION, "site_id", b"1" * 400)),
    "minus 400 digits": (Malformed.OUT_OF_RANGE, raw(IMPRESSION, "price_micros", b"-" + b"1" * 400)),
    "5,000 digits": (Malformed.OUT_OF_RANGE, raw(IMPRESSION, "event_time", b"1" * 5_000)),
    "exponent without digits in an unknown field": (Malformed.NOT_JSON, raw(IMPRESSION, "x", b"1e")),
    "401 digits with a leading zero in an unknown field": (Malformed.NOT_JSON, raw(IMPRESSION, "x", b"0" + b"1" * 400)),
    "leading zero": (Malformed.NOT_JSON, raw(IMPRESSION, "price_micros", b"0100")),
    "leading zero in an unknown field": (Malformed.NOT_JSON, raw(IMPRESSION, "x", b"00")),
    "plus sign": (Malformed.NOT_JSON, raw(IMPRESSION, "price_micros", b"+1")),
    "no digits behind the point": (Malformed.NOT_JSON, raw(IMPRESSION, "price_micros", b"1.")),
    "comma behind the last field": (Malformed.NOT_JSON, GOOD[:-1] + b",}"),
    "no comma": (Malformed.NOT_JSON, GOOD.replace(b", ", b" ", 1)),
    "no quotes around a name": (Malformed.NOT_JSON, GOOD.replace(b'"ip"', b"ip")),
    "single quotes": (Malformed.NOT_JSON, GOOD.replace(b'"', b"'")),
    "comment": (Malformed.NOT_JSON, GOOD[:-1] + b"/* */}"),
    "form feed between tokens": (Malformed.NOT_JSON, GOOD.replace(b": ", b":\x0c", 1)),
    "truncated bomb": (Malformed.NOT_JSON, b"[" * 5_000),
    "bomb of the wrong brackets": (Malformed.NOT_JSON, b"[" * 2_000 + b"}" * 2_000),
    "bomb with a lone surrogate": (Malformed.TOO_DEEP, b"[" * 2_000 + rb'"\ud800"' + b"]" * 2_000),
    "65 levels": (Malformed.TOO_DEEP, nest(65)),
    "bomb in an unknown field": (Malformed.TOO_DEEP, nest(7_000)),
    "bomb alone": (Malformed.TOO_DEEP, b"[" * 8_000 + b"]" * 8_000),
    "bomb of objects": (Malformed.TOO_DEEP, b'{"a":' * 2_000 + b"1" + b"}" * 2_000),
    "bomb that a repeated key hides": (Malformed.TOO_DEEP, nest(65)[:-1] + b',"x":1}'),
    "array": (Malformed.NOT_AN_OBJECT, b"[" + GOOD + b"]"),
    "string": (Malformed.NOT_AN_OBJECT, b'"impression"'),
    "number": (Malformed.NOT_AN_OBJECT, b"1"),
    "null": (Malformed.NOT_AN_OBJECT, b"null"),
    "a key twice": (Malformed.REPEATED_KEY, GOOD[:-1] + b', "event_id": "e-2"}'),
    "a key twice, alike": (Malformed.REPEATED_KEY, GOOD[:-1] + b', "width": 300}'),
    "a key twice, once escaped": (Malformed.REPEATED_KEY, GOOD[:-1] + rb', "\u0065vent_id": "e-2"}'),
    "an unknown key twice": (Malformed.REPEATED_KEY, GOOD[:-1] + b', "x": 1, "x": {}}'),
    "a long unknown key twice": (Malformed.REPEATED_KEY, GOOD[:-1] + b', "%b": 1, "%b": 2}' % (b"n" * 99, b"n" * 99)),
    "a key twice and fields absent": (Malformed.REPEATED_KEY, b'{"a":1,"a":1}'),
    "no fields": (Malformed.MISSING_FIELD, b"{}"),
    "a field absent and another wrong": (Malformed.MISSING_FIELD, without(IMPRESSION | {"ip": 1}, "site_id")),
    "name in capitals": (Malformed.MISSING_FIELD, GOOD.replace(b"event_id", b"Event_ID")),
    "a wrong type and a value out of range": (Malformed.WRONG_TYPE, text_of(IMPRESSION, ip="", site_id="")),
    "wrong type of a click's impression_id": (Malformed.WRONG_TYPE, text_of(CLICK, impression_id=1)),
    "event_time in the last second of time": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time="9999-12-31T23:59:60Z")),
    "event_time with a fraction": (Malformed.WRONG_TYPE, text_of(IMPRESSION, event_time=LOG_TIME + 0.5)),
    "event_time is true": (Malformed.WRONG_TYPE, text_of(IMPRESSION, event_time=True)),
    "event_time is null": (Malformed.WRONG_TYPE, text_of(IMPRESSION, event_time=None)),
    "big number with an exponent": (Malformed.WRONG_TYPE, raw(IMPRESSION, "site_id", b"1e30")),
    "integer of 30 digits": (Malformed.OUT_OF_RANGE, raw(IMPRESSION, "site_id", b"1" * 30)),
    "integer over 64 bits": (Malformed.OUT_OF_RANGE, raw(IMPRESSION, "event_time", b"18446744073709551616")),
    "integer that is 0 in 64 bits and a wrong type": (
        Malformed.WRONG_TYPE, raw(IMPRESSION | {"ip": None}, "site_id", b"18446744073709551616"),
    ),
    "unknown event_type": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_type="view")),
    "event_type in capitals": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_type="Impression")),
    "empty event_id": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_id="")),
    "event_id of 65 bytes": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_id="x" * 65)),
    "event_id of 22 letters and 66 bytes": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_id="€" * 22)),
    "user_id of 65 bytes": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, user_id="x" * 65)),
    "empty impression_id of a click": (Malformed.OUT_OF_RANGE, text_of(CLICK, impression_id="")),
    "impression_id of 65 bytes": (Malformed.OUT_OF_RANGE, text_of(CLICK, impression_id="x" * 65)),
    "price too high": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, price_micros=10**9 + 1)),
    "1999": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time=wire.EVENT_TIME_MS_MIN - 1)),
    "2100": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time=wire.EVENT_TIME_MS_MAX)),
    "seconds since the epoch": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time=LOG_TIME // 1000)),
    "1999 as text": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time="1999-12-31T23:59:59.999Z")),
    "time with an offset of hours": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time="2023-11-14T22:13:20+00")),
    "time with an offset of three digits": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time="2023-11-14T22:13:20+000")),
    "time without a zone": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time="2023-11-14T22:13:20")),
    "empty time": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time="")),
    "milliseconds as text": (Malformed.OUT_OF_RANGE, text_of(IMPRESSION, event_time=str(LOG_TIME))),
    "other kind": (Malformed.WRONG_TOPIC, text_of(CLICK)),
    "other kind, from the future": (Malformed.WRONG_TOPIC, text_of(CLICK, event_time=LOG_TIME + 300_001)),
    "from the future": (Malformed.FROM_THE_FUTURE, text_of(IMPRESSION, event_time=LOG_TIME + 300_001)),
    "from the future as text": (Malformed.FROM_THE_FUTURE, text_of(IMPRESSION, event_time="2023-11-14T22:18:20.001Z")),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    """Law: each kind of malformed record has its reason."""
    reason, value = MALFORMED[name]
    topic = IMPRESSIONS if reason == Malformed.WRONG_TOPIC else BOTH
    assert decode_one(value, topic=topic)[0] == reason


def test_every_reason_has_a_case():
    """Law: each reason that decode can give has a case (REJECTED_EARLIER is not decode's, UNDECODABLE_BATCH not a
    record's).
    """
    assert {reason for reason, _ in MALFORMED.values()} == set(Malformed) - {
        Malformed.OK,
        Malformed.REJECTED_EARLIER,
        Malformed.UNDECODABLE_BATCH,
    }


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_twice(name):
    """Law: a null is a member like any other: twice, or beside a value, the key is repeated."""
    for other in ("null", json.dumps(IMPRESSION[name])):
        value = raw(IMPRESSION, name, f'null, "{name}": {other}'.encode())
        assert decode_one(value)[0] == Malformed.REPEATED_KEY


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("literal", [b"nul", b"null_", b"Null", b"null1", b"null null", b'null"'])
def test_not_quite_null(name, literal):
    """Law: only null itself counts as absent."""
    assert decode_one(raw(IMPRESSION, name, literal))[0] == Malformed.NOT_JSON


@pytest.mark.parametrize("name", REQUIRED)
def test_required(name):
    """Law: a click without a required field is malformed; so is one where it is null, with another reason."""
    assert decode_one(without(CLICK, name), topic=BOTH)[0] == Malformed.MISSING_FIELD
    assert decode_one(text_of(CLICK, **{name: None}), topic=BOTH)[0] == Malformed.WRONG_TYPE


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("literal", [b'"5"', b"5.0", b"5e0", b"5E0", b"-0.0", b"true", b"[]", b"{}"])
def test_not_an_integer(name, literal):
    """Law: an integer field takes JSON integers only."""
    reason = Malformed.OUT_OF_RANGE if (name, literal) == ("event_time", b'"5"') else Malformed.WRONG_TYPE
    assert decode_one(raw(IMPRESSION, name, literal))[0] == reason


@pytest.mark.parametrize("name", [name for name in INTEGERS if name != "event_time"])
def test_integer_ranges(name):
    """Law: integers are in 0..their largest value; -0 is 0."""
    most = {"price_micros": 10**9, "width": 65_535, "height": 65_535}.get(name, 2**32 - 1)
    column = {"width": "width_px", "height": "height_px"}.get(name, name)
    for literal, number in ((b"0", 0), (b"-0", 0), (b"7", 7), (b"%d" % most, most)):
        assert decode_one(raw(IMPRESSION, name, literal))[1][column] == number
    for literal in (b"-1", b"%d" % (most + 1), b"9" * 16, b"9" * 17, b"1" + b"0" * 300):
        assert decode_one(raw(IMPRESSION, name, literal))[0] == Malformed.OUT_OF_RANGE


@pytest.mark.parametrize("name", TEXTS + BOOLEANS)
@pytest.mark.parametrize("literal", [b"5", b"[]", b"{}"])
def test_neither_string_nor_boolean(name, literal):
    """Law: text fields are strings and flags true or false."""
    assert decode_one(raw(CLICK, name, literal), topic=BOTH)[0] == Malformed.WRONG_TYPE
    other = b"true" if name in TEXTS else b'"true"'
    assert decode_one(raw(CLICK, name, other), topic=BOTH)[0] == Malformed.WRONG_TYPE


@pytest.mark.parametrize("text", ["eur", "EU", "EURO", "EÜR", "E R", "", "E1R"])
def test_no_currency(text):
    """Law: a currency is three capitals."""
    assert decode_one(text_of(IMPRESSION, currency=text))[0] == Malformed.OUT_OF_RANGE


@pytest.mark.parametrize(
    "text",
    [
        "D",
        "DEU",
        "deu",
        "D3",
        "d3",
        "3d",
        "ÄÖ",
        "ß",
        "ßa",
        "\u0131d",
        "\u017fe",
        "\u212ae",
        "D{",
        "@A",
        "`a",
        "[]",
        " ",
        "d ",
        "\x00d",
    ],
)
def test_no_country(text):
    """Law: a country is two letters A-Z or a-z, or empty; letters whose capitals are A-Z are none."""
    assert decode_one(text_of(IMPRESSION, country=text))[0] == Malformed.OUT_OF_RANGE


@pytest.mark.parametrize(
    "text",
    [
        "", "1.2.3", "1.2.3.4.5", "256.2.3.4", "01.2.3.4", "1.2.3.4 ", "1.2.3.-4", "1..2.3", "\u0661.2.3.4", "1.2.3.4/32",
        ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "::12345", "::g", "fe80::1%eth0", "[::1]",
        "::1.2.3", "::01.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:6:7:8::", "localhost",
    ],
)  # fmt: skip
def test_no_address(text):
    """Law: an address is IPv4 or IPv6 text without leading zeros, zone or prefix length."""
    assert decode_one(text_of(IMPRESSION, ip=text))[0] == Malformed.OUT_OF_RANGE
