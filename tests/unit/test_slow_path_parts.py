"""What the slow path relies on: timestamps, repeated keys, depth, and validity beyond orjson's own depth."""

import json
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.stages.json_text import Members, is_deeper_than, is_valid, parse, repeats_a_key
from adledger.pipeline.stages.rfc3339 import parse_ms

zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones), st.sampled_from("Tt "))  # noqa: DTZ001 - the strategy adds the zone
def test_any_time_is_read_to_the_millisecond(moment, separator):
    """Law: a time written by Python reads back, rounded down to milliseconds (up before the epoch)."""
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_ms(moment.isoformat(sep=separator)) == micros // 1000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.9999z", 999),
        ("2000-02-29 00:00:00+00:00", 951_782_400_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2017-01-01T08:59:60.5+09:00", 1_483_228_800_500),
        ("2015-06-30T23:59:60Z", 1_435_708_800_000),
        ("2016-11-30T23:59:60Z", None),
        ("2016-12-31T22:59:60Z", None),
        ("2001-02-29T00:00:00Z", None),
        ("2001-00-10T00:00:00Z", None),
        ("2001-01-01T24:00:00Z", None),
        ("2001-01-01T00:60:00Z", None),
        ("2001-01-01T00:00:00", None),
        ("2001-01-01T00:00:00.Z", None),
        ("2001-01-01T00:00:00,5Z", None),
        ("2001-01-01T00:00Z", None),
        ("2001-01-01T00:00:00+24:00", None),
        ("2001-01-01T00:00:00+00:60", None),
        ("2001-01-01T00:00:00+0000", 978_307_200_000),
        ("2001-01-01T00:00:00-0330", 978_319_800_000),
        ("2017-01-01T08:59:60+0900", 1_483_228_800_000),
        ("9999-12-31T23:59:60Z", None),  # the second after it is in no year of Python's
        ("9999-12-31T22:59:60-01:00", None),
        ("0001-01-01T00:00:60+23:59", None),
        ("2001-01-01T00:00:00+00", None),
        ("2001-01-01T00:00:00+000", None),
        ("2001-01-01T00:00:00+00000", None),
        ("2001-01-01T00:00:00+00:00:00", None),
        ("2001-01-01T00:00:00+0:000", None),
        ("2001-01-01T00:00:00+2400", None),
        ("2001-01-01T00:00:00+0060", None),
        ("2001-01-01T00:00:00Z0000", None),
        ("2001-01-01  00:00:00Z", None),
        ("2001-01-01T00:00:00Z\n", None),
        ("２001-01-01T00:00:00Z", None),  # noqa: RUF001 - a digit of another script
        ("+2001-01-01T00:00:00Z", None),
        ("20010101T000000Z", None),
        ("", None),
    ],
)
def test_times_by_name(text, ms):
    """Law: RFC 3339 as the module's docstring has it is accepted, and nothing else."""
    assert parse_ms(text) == ms


names = st.sampled_from(["a", "b", "\\u0061", "a:", '\\"a\\"', "\\\\", ""])
space = st.sampled_from(["", " ", "\n\t"])


@st.composite
def json_texts(draw, depth=3):
    gap = draw(space)
    kind = draw(st.sampled_from("osn" if depth else "sn"))
    if kind == "n":
        return draw(st.sampled_from(["1", "-2.5e3", "null", '"{"', '"\\"[:"', '"a":'[:3]]))
    items = draw(st.lists(json_texts(depth - 1) if depth else st.just("1"), max_size=3))
    if kind == "s":
        return f"[{gap}{','.join(items)}{gap}]"
    return "{" + gap + ",".join(f'"{draw(names)}"{gap}:{item}{gap}' for item in items) + "}"


@given(json_texts().filter(lambda text: text.startswith("{")))
def test_repeated_keys(text):
    """Law: repeats_a_key is what the standard library's parser finds in the outermost object."""
    members = json.loads(text, object_pairs_hook=tuple)
    repeated = len(members) > len(dict(members))
    assert repeats_a_key(text.encode(), orjson.loads(text)) == repeated


def _depth(tree):
    if isinstance(tree, list | tuple):
        return 1 + max(map(_depth, tree), default=0)
    return 1 + max(map(_depth, tree.values()), default=0) if isinstance(tree, dict) else 0


@given(json_texts(), st.integers(0, 5))
def test_depth(text, depth_max):
    """Law: depth is the largest number of arrays and objects around one position, whatever strings contain."""
    tree = json.loads(text, object_pairs_hook=lambda members: [value for _, value in members])
    assert is_deeper_than(text.encode(), depth_max) == (_depth(tree) > depth_max)


@given(json_texts(), st.integers(0, 50), st.sampled_from(list('[]{},:"0 \\\x01\x02é')), st.booleans())
def test_validity_is_orjsons(text, at, character, insert):
    """Law: within orjson's depth, is_valid and parse agree with it on valid and on spoiled texts."""
    at = min(at, len(text))
    spoiled = (text[:at] + character + text[at + (not insert) :]).encode()
    for value in (text.encode(), spoiled):
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            assert not is_valid(value)
            with pytest.raises(ValueError, match=r"\S"):
                parse(value)
        else:
            assert is_valid(value)
            assert _plain(parse(value)) == found


def _plain(tree):
    if isinstance(tree, Members):
        return {name: _plain(value) for name, value in tree}
    return [_plain(value) for value in tree] if isinstance(tree, list) else tree


literals = st.sampled_from(
    ["1e400", "-1E+400", "0e999", "1" * 400, "-" + "1" * 5_000, "0." + "1" * 400, "1e" + "9" * 400, "1e-400"]
) | st.lists(
    st.sampled_from([r"\ud800", r"\uDBFF", r"\udc00", r"\uDFFF", r"\u0041", "x", "é", r"\n"]), max_size=6
).map(lambda parts: f'"{"".join(parts)}"')


@given(
    literals,
    st.sampled_from(["%s", "[%s]", '{"a":%s}', '{"b":[1,%s]}']),
    st.integers(0, 12),
    st.sampled_from(' "\\eu.0\x01'),
)
def test_what_only_parse_accepts(literal, around, at, character):
    """Law: JSON by its grammar is valid with any number and any escape, and one that is spoiled only where it still has
    that grammar: as the standard library's parser finds, NaN and infinity aside.
    """
    text = around % literal
    spoiled = text[:at] + character + text[at + 1 :]
    assert is_valid(text.encode())
    parse(text.encode())
    try:
        json.loads(spoiled, parse_int=str, parse_float=str)
    except ValueError:
        assert not is_valid(spoiled.encode())
    else:
        assert is_valid(spoiled.encode())


@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ("[[],", "]"), ('[{"":[', "]}]")]
)
def test_validity_beyond_orjsons_depth(opening, closing):
    """Law: a valid text of any depth is valid, and is not when a bracket is missing, extra or of the wrong kind."""
    text = opening * 2_000 + "1" + closing * 2_000
    assert is_valid(text.encode())
    for spoiled in (
        text[:-1],
        text + closing,
        text.replace("1", "1,"),
        text.replace("1", "]"),
        text[:-1] + "}]"[closing[-1] == "}"],
    ):
        assert not is_valid(spoiled.encode())
