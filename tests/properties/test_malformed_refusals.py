"""Explanations of malformed records: the reason is the decoder's; the field, what was found, and what is allowed."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.stages.field_rules import FIELDS
from adledger.pipeline.stages.malformed import MalformedReason, publisher_of, refusal_of
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.pipeline.stages.snippets import SNIPPET_CHARS_MAX, bytes_snippet, escaped, json_snippet
from adledger.schemas import wire
from adledger.schemas.wire import Malformed, currency_code
from tests.support import wire_texts as wt
from tests.support.one_record import GOOD, OPTIONAL, nest, raw, text_of, without
from tests.unit.test_decode_malformed import MALFORMED

CONTEXT = DecodeContext(wt.LANE, wt.PARTITIONS, (1, 2, 0), currency_code("USD"))
OF_A_FIELD = {
    Malformed.REPEATED_KEY, Malformed.MISSING_FIELD, Malformed.WRONG_TYPE, Malformed.OUT_OF_RANGE, Malformed.WRONG_TOPIC,
    Malformed.FROM_THE_FUTURE,
}  # fmt: skip
FOUND_CHARS_MAX = 160
"""A snippet, and a remark beside it."""


def assert_explained(value: bytes | None, kind: int, log_time: int = wt.LOG_TIME) -> MalformedReason | None:
    """Check the laws of an explanation against the decoder; return it."""
    decided = decode_plain(value, b"u-14", kind, log_time, CONTEXT)
    refusal = refusal_of(value, kind, log_time)
    publisher_of(value)
    if not isinstance(decided, Malformed):
        assert refusal is None
        return None
    assert refusal is not None
    assert refusal.reason == decided
    assert bool(refusal.field) == (decided in OF_A_FIELD), (value, refusal)
    assert refusal.found
    assert refusal.allowed
    assert len(refusal.found) <= FOUND_CHARS_MAX
    assert str(refusal).isprintable()
    str(refusal).encode()
    return refusal


@pytest.mark.parametrize("seed", range(8))
def test_explanations_agree_with_the_decoder(seed):
    """On spoiled events of every kind the reason is the same, or none; with a field wherever one is at fault."""
    rng = random.Random(seed)
    for _ in range(1_000):
        assert_explained(wt.fuzzed(rng)[0], rng.randrange(3))


@pytest.mark.parametrize("name", MALFORMED)
def test_each_kind_of_malformed_record_is_explained(name):
    """What was found and what is allowed is said for each of them, in bounded printable text."""
    reason, value = MALFORMED[name]
    assert assert_explained(value, 1 if reason == Malformed.WRONG_TOPIC else 0) is not None


@given(st.binary(max_size=300))
def test_any_bytes_are_explained(value):
    """Whatever the bytes, the explanation is bounded and printable."""
    assert_explained(value, 0)


EXPLAINED = {
    "empty": (b"", "", "empty", "one JSON object in UTF-8"),
    "too large": (GOOD.ljust(20_000), "", "20,000 bytes", "at most 16,384 bytes"),
    "too deep": (nest(70), "", "nested 70 deep", "objects and arrays nested at most 64 deep"),
    "array": (b"[1, 2]", "", "an array of 2", "one JSON object in UTF-8"),
    "text": (b'"hello"', "", '"hello"', "one JSON object in UTF-8"),
    "no JSON": (b"impression;1", "", "expecting value at byte 0: impression;1", "one JSON object in UTF-8"),
    "cut off": (b'{"event_type": "impr', "", 'unterminated string at byte 15: "impr', "one JSON object in UTF-8"),
    "cut off after a comma": (b'{"a": 1,', "", "expecting property name enclosed in double quotes at its end", "one JSON object in UTF-8"),
    "NaN": (b'{"a": NaN}', "", "NaN is not JSON", "one JSON object in UTF-8"),
    "Latin-1": (b'{"\xc3\xa9": "caf\xe9"}', "", 'not UTF-8 at byte 11: \\xe9"}', "one JSON object in UTF-8"),
    "after UTF-8": ('{"é": x}'.encode(), "", "expecting value at byte 7: x}", "one JSON object in UTF-8"),
    "repeated": (GOOD[:-1] + b', "\\u0069p": 1, "ip": 2}', "ip", "there 3 times", "each key once"),
    "absent": (without(wt.IMPRESSION, "site_id"), "site_id", "absent", "an integer from 0 to 4,294,967,295"),
    "absent from a click": (without(wt.CLICK, "impression_id"), "impression_id", "absent", "a string of 1 to 64 bytes"),
    "null": (text_of(wt.IMPRESSION, ip=None), "ip", "null", "an IPv4 or IPv6 address"),
    "true": (text_of(wt.IMPRESSION, price_micros=True), "price_micros", "true", "an integer from 0 to 1,000,000,000"),
    "as it was written": (raw(wt.IMPRESSION, "price_micros", b"1.50e3"), "price_micros", "1.50e3", "an integer from 0 to 1,000,000,000"),
    "no double": (raw(wt.IMPRESSION, "width", b"-1E400"), "width", "-1E400", "an integer from 0 to 65,535"),
    "an object": (text_of(wt.IMPRESSION, country={"code": "DE"}), "country", "an object of 1 field", "2 letters A-Z, or empty"),
    "an array for a flag": (text_of(wt.IMPRESSION, is_test=[]), "is_test", "an array of 0", "true or false"),
    "digits": (
        raw(wt.IMPRESSION, "site_id", b"1" * 70), "site_id", "1" * 60 + "... (70 digits)", "an integer from 0 to 4,294,967,295",
    ),
    "many digits": (
        raw(wt.IMPRESSION, "site_id", b"-" + b"1" * 5_000), "site_id", "an integer of more than 1,000 digits",
        "an integer from 0 to 4,294,967,295",
    ),
    "country": (text_of(wt.IMPRESSION, country="ß"), "country", '"ß" (2 bytes)', "2 letters A-Z, or empty"),
    "currency": (text_of(wt.IMPRESSION, currency="eur"), "currency", '"eur"', "3 capital letters A-Z"),
    "long id": (
        text_of(wt.IMPRESSION, event_id="x" * 65), "event_id", '"' + "x" * 60 + '"... (65 bytes)', "a string of 1 to 64 bytes",
    ),
    "id of 22 letters": (text_of(wt.IMPRESSION, event_id="€" * 22), "event_id", '"' + "€" * 22 + '" (66 bytes)', "a string of 1 to 64 bytes"),
    "half a pair": (
        raw(wt.IMPRESSION, "page_url", rb'"a\ud83d"'), "page_url", '"a\\ud83d" (4 bytes) (half of a surrogate pair)', "a string of whole Unicode characters",
    ),
    "control characters": (text_of(wt.IMPRESSION, ip='\x1b[31m"\u202e'), "ip", '"\\x1b[31m\\"\\u202e" (9 bytes)', "an IPv4 or IPv6 address"),
    "seconds": (
        text_of(wt.IMPRESSION, event_time=1_700_000_000), "event_time", "1700000000 (seconds)",
        "milliseconds since 1970 or RFC 3339 text, from 2000 to 2099",
    ),
    "ahead": (
        text_of(wt.IMPRESSION, event_time=wt.LOG_TIME + 3_600_000), "event_time", "1700003600000, 3,600.000 s after its log time",
        "at most 5 minutes after its log time",
    ),
    "ahead, as text": (
        text_of(wt.IMPRESSION, event_time="2023-11-14T23:13:20+0000"), "event_time",
        '"2023-11-14T23:13:20+0000", 3,600.000 s after its log time', "at most 5 minutes after its log time",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_is_said(name):
    """It names the field, what was found as it was sent, and what is allowed."""
    value, field, found, allowed = EXPLAINED[name]
    refusal = assert_explained(value, 0)
    assert refusal is not None
    assert refusal[1:] == (field, found, allowed)


def test_the_other_topics_event():
    """An event in the other kind's topic is named by its type."""
    refusal = assert_explained(text_of(wt.CLICK), 1)
    assert refusal is not None
    assert str(refusal) == 'wrong topic: event_type is "click"; allowed: only impressions in this topic'


@pytest.mark.parametrize("name", [n for n in FIELDS if n != "impression_id"])
@pytest.mark.parametrize(
    "wrong", [None, [], -1, "x" * 3_000, "\ud800", 10**300], ids=["null", "array", "negative", "long", "half a pair", "huge"]
)  # fmt: skip
def test_the_field_at_fault_is_named(name, wrong):
    """For an event with one wrong field the words name it, what was found and what is allowed."""
    accepted = (wrong is None and name in OPTIONAL) or (
        isinstance(wrong, str) and len(wrong) > 1 and name in {"user_agent", "page_url"}
    )
    refusal = assert_explained(text_of(wt.IMPRESSION, **{name: wrong}), 0)
    if accepted:
        assert refusal is None
    else:
        assert refusal is not None
        assert (refusal.field, refusal.allowed) == (name, FIELDS[name].allowed)


def test_publishers_are_read_where_they_can_be():
    """They are read from any JSON object, and from what is only part of one if it names one publisher."""
    assert publisher_of(b'{"publisher_id": 7, "ip": []}') == 7
    assert publisher_of(GOOD[:200]) == wt.IMPRESSION["publisher_id"]
    assert publisher_of(b'{"publisher_id":7,"x":NaN}') == 7
    assert publisher_of(b'\xff{"publisher_id":4294967295}') == wire.UINT32_MAX
    for value in (
        None,
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"publisher_id": "7"}',
        b'{"publisher_id": true}',
        b'{"publisher_id": -1}',
        b'{"publisher_id": 4294967296,',
        b'{"publisher_id": 12',
        b'{"publisher_id": 1, "publisher_id": 2,',
        b'{"page_url": "\\"publisher_id\\":5,',
        b"[" * 16_000,
    ):
        assert publisher_of(value) is None


@given(st.text(st.characters() | st.characters(categories=("Cs", "Cc", "Cf")), max_size=200))
def test_snippets_are_bounded_and_printable(text):
    """Nothing that a terminal interprets comes through, and escapes count."""
    for shown in (json_snippet(text), bytes_snippet(text.encode("utf-8", "surrogatepass"))):
        assert shown.isprintable()
        assert len(shown) <= SNIPPET_CHARS_MAX + 30
    assert escaped(text).isprintable()


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats(), lambda c: st.lists(c, max_size=2))
)
def test_any_value_has_a_snippet(value):
    """So does every value, however large."""
    assert len(json_snippet(json.loads(json.dumps(value)))) <= SNIPPET_CHARS_MAX + 30
