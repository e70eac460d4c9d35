"""schemas/event.schema.json accepts what the decoder accepts, and refuses what it refuses, but for a stated list."""

import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.stages.event_schema import BEYOND, event_schema
from adledger.pipeline.stages.field_rules import FIELDS
from adledger.pipeline.stages.rfc3339 import parse_ms
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.schemas import wire
from adledger.schemas.wire import Malformed
from tests.support import wire_texts as wt
from tests.support.one_record import INTEGERS, OPTIONAL, raw, text_of, without
from tests.unit.test_decode_malformed import MALFORMED

COMMITTED = Path(__file__).resolve().parents[2] / "schemas" / "event.schema.json"
SCHEMA = event_schema()
VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA)
EVERYTHING = DecodeContext(wt.LANE, wt.PARTITIONS, (0,), wire.currency_code("USD"))
OF_THE_TEXT = {
    Malformed.TOMBSTONE, Malformed.TOO_LARGE, Malformed.NOT_JSON, Malformed.TOO_DEEP, Malformed.REPEATED_KEY,
}  # fmt: skip
LENGTHS, FRACTIONS, DAYS, SURROGATES, TEXT, RECORD = BEYOND


def decoded(value: bytes | None) -> Malformed:
    """Return the decoder's reason; no record is of another topic, or from the future."""
    event = decode_plain(value, None, 0, wire.EVENT_TIME_MS_MAX, EVERYTHING)
    return event if isinstance(event, Malformed) else Malformed.OK


def beyond(event: dict[str, Any]) -> set[str]:
    """Return which entries of BEYOND an event has, beside those of its text and record."""
    is_click = event.get("event_type") == "click"
    known = {
        name: value
        for name, value in event.items()
        if name in FIELDS and (is_click or name != "impression_id")
    }
    found = set()
    for name, value in known.items():
        if name in {"event_id", "user_id", "impression_id"} and isinstance(value, str):
            found |= {LENGTHS} if len(value.encode()) > wire.EVENT_ID_BYTES_MAX else set()
        if isinstance(value, float) and value.is_integer() and name in {*INTEGERS, "event_time"}:
            found.add(FRACTIONS)
        if name == "event_time" and isinstance(value, str):
            ms = parse_ms(value)
            inside = ms is not None and wire.EVENT_TIME_MS_MIN <= ms < wire.EVENT_TIME_MS_MAX
            found |= set() if inside else {DAYS}
    return found


def assert_same(value: bytes | None) -> None:
    """Check the law on one record."""
    reason = decoded(value)
    if reason in OF_THE_TEXT:
        return  # TEXT: no value that a schema could look at
    try:
        event = orjson.loads(value or b"")
    except (
        orjson.JSONDecodeError
    ):  # half of a surrogate pair, a number that no double holds: no validator takes them
        return
    valid = VALIDATOR.is_valid(event)
    if reason == Malformed.OK:
        assert valid, (value, [e.message for e in VALIDATOR.iter_errors(event)])
    else:
        assert not valid or (isinstance(event, dict) and beyond(event)), (reason, value)


def test_the_committed_schema_is_current():
    """Regenerate it with `python -m adledger.pipeline.stages.event_schema > schemas/event.schema.json`."""
    assert orjson.loads(COMMITTED.read_bytes()) == SCHEMA


def test_it_is_a_schema_that_describes_every_field():
    """It is valid by the meta-schema of 2020-12, and has each field of the contract with its words."""
    assert jsonschema_rs.meta.is_valid(SCHEMA)
    assert list(SCHEMA["properties"]) == list(FIELDS)
    for name, rule in FIELDS.items():
        assert rule.allowed in SCHEMA["properties"][name]["description"]


def test_patterns_are_read_alike_everywhere():
    """They use what RE2, Rust, Java and ECMAScript share: no lookaround, back reference, class or flag."""
    patterns = re.findall(r'"pattern":"((?:[^"\\]|\\.)*)"', orjson.dumps(SCHEMA).decode())
    assert len(patterns) == 2 * len(ENDS_WITH_A_LINE_FEED)
    for pattern in patterns:
        assert not re.search(r"\(\?|\\\\[^.]", pattern), pattern


ENDS_WITH_A_LINE_FEED = {
    "event_time": "2023-11-14T22:13:20Z\n",
    "ip": "1.2.3.4\n",
    "currency": "EUR\n",
    "country": "DE\n",
}


@pytest.mark.parametrize("name", ENDS_WITH_A_LINE_FEED)
def test_a_line_feed_at_the_end_is_refused_in_python_too(name):
    """There `$` matches before it, as JSON Schema's `$` does not."""
    event = wt.IMPRESSION | {name: ENDS_WITH_A_LINE_FEED[name]}
    assert not VALIDATOR.is_valid(event)
    assert decoded(text_of(event)) == Malformed.OUT_OF_RANGE
    described = SCHEMA["properties"][name]
    (texts,) = (
        [found for found in described["anyOf"] if "pattern" in found] if "anyOf" in described else [described]
    )
    assert re.search(texts["pattern"], event[name])
    assert re.search(texts["not"]["pattern"], event[name])


@pytest.mark.parametrize("seed", range(8))
def test_spoiled_events_are_valid_if_they_decode(seed):
    """On spoiled events of every kind the schema and the decoder agree, but for BEYOND."""
    rng = random.Random(seed)
    for _ in range(1_000):
        assert_same(wt.fuzzed(rng)[0])


@pytest.mark.parametrize("name", MALFORMED)
def test_each_kind_of_malformed_record_is_refused(name):
    """So it is on each record of the decoder's own tests."""
    assert_same(MALFORMED[name][1])


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_with_a_hostile_value(name):
    """Each field with each hostile value, on impressions and clicks."""
    for event, literal in itertools.product((wt.IMPRESSION, wt.CLICK), wt.HOSTILE_VALUES):
        assert_same(raw(event, name, literal.encode()))


@pytest.mark.parametrize("name", FIELDS)
def test_only_optional_fields_may_be_absent(name):
    """An event without one field is valid where the field is optional."""
    value = without(wt.CLICK, name)
    assert VALIDATOR.is_valid(json.loads(value)) == (name in OPTIONAL)
    assert_same(value)


@given(st.from_regex(SCHEMA["properties"]["ip"]["pattern"].replace("$", r"\Z")))
def test_each_address_of_the_pattern_decodes(text):
    """The pattern of `ip` has no address that the decoder refuses."""
    assert decoded(text_of(wt.IMPRESSION, ip=text)) == Malformed.OK


ADDRESS_LIKE = st.text("0123456789abcdefABCDEFx:.% ", max_size=45) | st.lists(
    st.sampled_from([":", "::", ".", "0", "1", "25", "255", "256", "00", "ffff", "12345", "1.2.3.4", "%e"]),
    max_size=18,
).map("".join)


@given(ADDRESS_LIKE | st.ip_addresses().map(str) | st.ip_addresses(v=6).map(lambda ip: ip.exploded))
def test_each_address_of_the_decoder_is_valid(text):
    """Nor has the decoder one that the pattern refuses."""
    assert_same(text_of(wt.IMPRESSION, ip=text))


@given(st.from_regex(SCHEMA["properties"]["event_time"]["anyOf"][1]["pattern"].replace("$", r"\Z")))
def test_each_time_of_the_pattern_decodes_where_its_day_exists(text):
    """Of the times that the pattern accepts, the decoder refuses those of DAYS alone."""
    assert_same(text_of(wt.IMPRESSION, event_time=text))
    refused = decoded(text_of(wt.IMPRESSION, event_time=text)) != Malformed.OK
    known = re.match(r"(1999|2100)|....-..-(29|30|31)|....-01-01|....-12-31", text) or re.search(
        r":60(\.|[Zz+-])", text
    )
    assert not refused or known, text


@given(
    st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat())
    | st.text("0123456789-:TtZz+. ", max_size=30)
)
def test_each_time_of_the_decoder_is_valid(text):
    """No time that the decoder takes is refused."""
    assert_same(text_of(wt.IMPRESSION, event_time=text))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=70),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(max_size=5), children, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(
    st.sampled_from([wt.IMPRESSION, wt.CLICK]),
    st.dictionaries(st.sampled_from(list(FIELDS)) | st.text(), JSON_VALUES, max_size=3),
)
def test_any_values_in_any_fields(event, changed):
    """For any JSON values in any fields the law holds."""
    assert_same(text_of(event, **changed))


@given(JSON_VALUES)
def test_any_json(value):
    """For any JSON at all."""
    assert_same(json.dumps(value).encode())


EXAMPLES = {
    LENGTHS: text_of(wt.IMPRESSION, event_id="€" * 22),
    FRACTIONS: raw(wt.IMPRESSION, "site_id", b"1e3"),
    DAYS: text_of(wt.IMPRESSION, event_time="2026-02-30T00:00:00Z"),
    TEXT: text_of(wt.IMPRESSION)[:-1] + b',"ip":"1.2.3.4"}',
    RECORD: text_of(wt.IMPRESSION, event_time=wire.EVENT_TIME_MS_MAX - 1),
}


@pytest.mark.parametrize("what", EXAMPLES)
def test_what_the_schema_can_not_say(what):
    """Each entry of the list is true: the schema accepts, the decoder refuses."""
    assert VALIDATOR.is_valid(json.loads(EXAMPLES[what]))
    assert isinstance(decode_plain(EXAMPLES[what], None, 0, wt.LOG_TIME, EVERYTHING), Malformed)


def test_half_of_a_surrogate_pair_is_refused_by_the_decoder_alone():
    """SURROGATES: the schema allows any string there; most validators refuse to read such text at all."""
    assert "pattern" not in SCHEMA["properties"]["page_url"]
    assert decoded(raw(wt.IMPRESSION, "page_url", rb'"\ud800"')) == Malformed.OUT_OF_RANGE
    assert SURROGATES in SCHEMA["$comment"]


def test_the_list_is_in_the_schema_and_on_the_page():
    """Producers read it in the schema's comment, and in docs/events.md."""
    page = " ".join((COMMITTED.parents[1] / "docs" / "events.md").read_text("utf-8").split())
    for what in BEYOND:
        assert what in SCHEMA["$comment"]
        assert what in page, what
