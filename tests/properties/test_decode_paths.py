"""Both paths agree: decode says of a record what the slow path says of it, whatever came before."""

import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.records.columns import Decoded, RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode, pages, user_agents
from adledger.pipeline.stages.plain_hashes import xxh64
from adledger.pipeline.stages.slow_path import PlainEvent, decode_plain
from adledger.schemas import wire
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.wire import Flag, Malformed
from tests.support import wire_texts as wt

CONTEXT = DecodeContext(lane=wt.LANE, partitions=wt.PARTITIONS, kinds=(1, 2, 0), default_currency=4_711)


def plain_row(decoded: Decoded, row: int) -> PlainEvent | Malformed:
    """Return row `row` as the slow path would return it."""
    if decoded.status[row]:
        return Malformed(decoded.status[row])
    numbers = (int(getattr(decoded.columns, name)[row]) for name in EVENT_DTYPES)
    return PlainEvent(*numbers, *user_agents(decoded, [row]), *pages(decoded, [row]))


def assert_paths_agree(records: list[tuple[bytes | None, bytes | None]], topics: list[int]) -> Decoded:
    values, keys = [v for v, _ in records], [k for _, k in records]
    log_times = [wt.LOG_TIME] * len(records)
    decoded = decode(RecordRefs.of(values, keys, topics=topics, log_times=log_times), CONTEXT)
    for row, (value, key) in enumerate(records):
        kind = CONTEXT.kinds[topics[row]]
        assert plain_row(decoded, row) == decode_plain(value, key, kind, wt.LOG_TIME, CONTEXT), value
    for row in (decoded.status != 0).nonzero()[0]:
        assert all(getattr(decoded.columns, name)[row] == 0 for name in EVENT_DTYPES), (
            "malformed rows are zero"
        )
    return decoded


@pytest.mark.parametrize("seed", range(8))
def test_fuzzed_records(seed):
    """Law: on spoiled events of every kind, in one batch, the paths agree on each record."""
    rng = random.Random(seed)
    records = [wt.fuzzed(rng) for _ in range(1_000)]
    decoded = assert_paths_agree(records, [rng.randrange(3) for _ in records])
    assert {Malformed(reason) for reason in set(decoded.status.tolist())} >= {
        Malformed.OK, Malformed.NOT_JSON, Malformed.REPEATED_KEY, Malformed.MISSING_FIELD,
        Malformed.WRONG_TYPE, Malformed.OUT_OF_RANGE, Malformed.WRONG_TOPIC,
    }, "the fuzzing must reach them"  # fmt: skip


lone = st.characters() | st.characters(categories=("Cs",))
"""Half surrogate pairs too, which JSON can escape."""
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=False) | st.text(lone),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(lone), children, max_size=3),
    max_leaves=5,
)


near_limits = st.builds(
    lambda count, unit, tail: unit * (count // len(unit.encode())) + tail,
    st.integers(1_015, 1_030) | st.integers(2_040, 2_055), st.sampled_from("xé€😀"), st.text(max_size=8),
)  # fmt: skip
texts = st.text(max_size=70) | near_limits | st.from_regex(r"[ -~]{0,70}", fullmatch=True)
odd_fields = st.dictionaries(
    st.sampled_from(list(wt.CLICK)) | st.text(max_size=40), json_values | texts, max_size=3
)
styles = st.sampled_from(((",", ":"), (", ", ": "), (" ,\n\t", " : ")))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((wt.IMPRESSION, wt.CLICK)), odd_fields, styles, st.booleans()), max_size=6
    )
)
def test_any_values(drawn):
    """Law: whatever JSON value a known or unknown field has, and however it is written, the paths agree."""
    values = [
        json.dumps(event | odd, separators=style, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        for event, odd, style, ascii_only in drawn
    ]
    assert_paths_agree([(value, b"u-14") for value in values], [2] * len(values))


ip_like = (
    st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda address: address.exploded)
    | st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}")
    | st.from_regex(r"[0-9a-fA-F:.%]{0,46}", fullmatch=True)
    | st.lists(
        st.sampled_from(["", "0", "1", "255", "256", "01", "ffff", "12345", "1.2.3.4"]), max_size=10
    ).map(":".join)
    | st.lists(st.integers(0, 300).map(str), min_size=3, max_size=5).map(".".join)
)
time_like = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    st.integers(1969, 2101),
    st.integers(0, 13),
    st.integers(0, 32),
    st.sampled_from("TTTt x"),
    st.integers(0, 24),
    st.integers(0, 60),
    st.integers(0, 61),
    st.from_regex(r"(\.[0-9]{0,18})?", fullmatch=True),
    st.sampled_from(
        [
            "Z",
            "z",
            "",
            "+00:00",
            "-23:59",
            "+24:00",
            "-00:60",
            "+0100",
            "-2359",
            "+2400",
            "-0060",
            "+00",
            "+010",
            "+01000",
            " Z",
        ]
    ),
)
leap_like = st.builds(
    "{:04}-{}T{:02}:{}:60{}".format,
    st.integers(1999, 2100),
    st.sampled_from(["06-30", "12-31", "07-01", "01-01", "01-31"]),
    st.integers(0, 23),
    st.sampled_from(["59", "29"]),
    st.sampled_from(["Z", ".25z", "+09:00", "-0800", "+05:30", "-14:30"]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(ip_like, time_like | leap_like | st.datetimes().map(lambda t: t.isoformat() + "Z")),
        max_size=20,
    )
)
def test_addresses_and_times(drawn):
    """Law: the compiled parsers of addresses and RFC 3339 times agree with the slow path's."""
    values = [json.dumps(wt.IMPRESSION | {"ip": ip, "event_time": time}).encode() for ip, time in drawn]
    values += [json.dumps(wt.IMPRESSION | {"ip": ip}).encode() for ip, _ in drawn]
    values += [json.dumps(wt.IMPRESSION | {"event_time": time}).encode() for _, time in drawn]
    assert_paths_agree([(value, b"u-14") for value in values], [0] * len(values))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.none() | st.binary(max_size=40) | texts.map(str.encode), max_size=10))
def test_any_bytes(values):
    """Law: on bytes that are hardly ever JSON the paths agree."""
    assert_paths_agree([(value, value) for value in values], [0] * len(values))


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 600))
def test_a_torn_record_is_read_no_further_than_its_end(rng, length):
    """Law: bytes after a record are never taken for part of it, even if they would complete it."""
    whole = wt.json_text(wt.members_of(wt.CLICK), rng.choice(("", " "))).encode()
    refs = RecordRefs.of([whole, whole], [b"u-14"] * 2, topics=[2, 2], log_times=[wt.LOG_TIME] * 2)
    refs.value_len[1] = min(length, len(whole))
    decoded = decode(refs, CONTEXT)
    torn = decode_plain(whole[:length], b"u-14", 0, wt.LOG_TIME, CONTEXT)
    assert plain_row(decoded, 1) == torn
    assert isinstance(torn, Malformed) == (len(whole[:length].rstrip()) < len(whole.rstrip()))


@pytest.mark.parametrize(
    "log_time", [1 - 2**63, -1, wt.LOG_TIME - wire.FUTURE_MS_MAX, wt.LOG_TIME, 2**63 - 2]
)
def test_log_times_of_any_size(log_time):
    """Law: the paths agree on what is from the future, also where `log_time = record` takes a time near int64's ends."""
    good = json.dumps(wt.IMPRESSION).encode()
    values = [good, good.replace(b'"site_id"', b'"site\\u005fid"').replace(b'"DE"', b'"de"')]
    values += [json.dumps(wt.IMPRESSION | {"event_time": "2023-11-14T22:13:20.001Z"}).encode()]
    decoded = decode(RecordRefs.of(values, [b"u-14"] * 3, log_times=[log_time] * 3), CONTEXT)
    for row, value in enumerate(values):
        assert plain_row(decoded, row) == decode_plain(value, b"u-14", 1, log_time, CONTEXT), value


@settings(max_examples=200, deadline=None)
@given(texts, texts)
def test_strings_are_hashed_unescaped(page, agent):
    """Law: hashes are of the unescaped UTF-8 bytes, up to the limits, and the strings returned are those bytes."""
    event = wt.IMPRESSION | {"page_url": page, "user_agent": agent}
    values = [json.dumps(event, ensure_ascii=ascii_only).encode() for ascii_only in (False, True)]
    decoded = decode(RecordRefs.of(values, [b"u-14"] * 2, log_times=[wt.LOG_TIME] * 2), CONTEXT)
    assert decoded.status.tolist() == [0, 0]
    kept_page = page.encode()[: wire.PAGE_URL_BYTES_MAX].decode("utf-8", "ignore").encode()
    kept_agent = agent.encode()[: wire.USER_AGENT_BYTES_MAX].decode("utf-8", "ignore").encode()
    assert decoded.columns.page_hash.tolist() == [xxh64(kept_page)] * 2
    assert decoded.columns.ua_hash.tolist() == [xxh64(kept_agent)] * 2
    assert pages(decoded, [0, 1]) == [kept_page] * 2
    assert user_agents(decoded, [0, 1]) == [kept_agent] * 2
    flags = (agent.encode() != kept_agent) << Flag.UA_TRUNCATED | (
        page.encode() != kept_page
    ) << Flag.PAGE_TRUNCATED
    assert (decoded.columns.flags >> Flag.UA_TRUNCATED).tolist() == [flags >> Flag.UA_TRUNCATED] * 2


USUAL = {
    "nulls": wt.IMPRESSION | dict.fromkeys(("placement_id", "currency", "country", "width", "height", "is_prefetch", "is_test")),
    "a null impression_id": wt.IMPRESSION | {"impression_id": None},
    "a small country": wt.IMPRESSION | {"country": "de"},
    "an offset without a colon": wt.IMPRESSION | {"event_time": "2023-11-14T22:13:20+0000"},
    "a long user agent": wt.IMPRESSION | {"user_agent": "é" * 600},
    "a long page": wt.IMPRESSION | {"page_url": "x" * 3_000},
    "a long unknown name": wt.IMPRESSION | {"n" * 300: 1, "é" * 20: 1},
    "names with escapes": wt.IMPRESSION | {'a "name"': 1, "日本": 2},
    "nanoseconds and more": wt.IMPRESSION | {"event_time": "2023-11-14T22:13:20.123456789012345678901234567890123Z"},
    "a leap second": wt.IMPRESSION | {"event_time": "2016-12-31T23:59:60.5Z"},
    "a leap second elsewhere": wt.IMPRESSION | {"event_time": "2017-01-01T08:59:60+09:00"},
    "forty unknown fields": wt.IMPRESSION | {f"custom_field_{n}": [n, {}] for n in range(40)},
    "a click's field on an impression": wt.IMPRESSION | {"impression_id": 5},
    "unknown fields": wt.IMPRESSION | {"x": "\ud800", "y": {"\udc00": 10**400}},
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_what_honest_producers_send_is_fast(name):
    """Law: what whole fleets of honest producers write takes the fast path; a slow record costs as much as fifty."""
    values = [json.dumps(USUAL[name], separators=(",", ":")).encode(), json.dumps(USUAL[name]).encode()]
    decoded = decode(RecordRefs.of(values, [b"u-14"] * 2, log_times=[wt.LOG_TIME] * 2), CONTEXT)
    assert decoded.status.tolist() == [0, 0]
    assert not decoded.slow_texts


CERTAIN = {
    Malformed.MISSING_FIELD: [{"price_micros": ...}, {"event_type": ..., "ip": 5}, {"event_type": "click", "impression_id": ...}],
    Malformed.WRONG_TYPE: [
        {"price_micros": "1"}, {"price_micros": 0.5}, {"price_micros": 1e3}, {"site_id": None}, {"ip": 5, "currency": "eur"},
        {"is_test": "true"}, {"user_agent": ["a"]}, {"event_type": "click", "impression_id": None}, {"width": {}},
    ],
    Malformed.OUT_OF_RANGE: [
        {"price_micros": -1}, {"price_micros": 10**9 + 1}, {"site_id": 10**30}, {"event_time": 1_700_000_000}, {"event_time": "2023-11-14T22:13:20"},
        {"currency": "eur"}, {"country": "DEU"}, {"ip": "unknown"}, {"event_id": ""}, {"user_id": "é" * 33}, {"page_url": "\ud800"},
        {"event_type": "view"}, {"event_type": "click", "impression_id": "x" * 65},
    ],
    Malformed.WRONG_TOPIC: [{"event_type": "click", "impression_id": "i"}],
    Malformed.FROM_THE_FUTURE: [{"event_time": wt.LOG_TIME + wire.FUTURE_MS_MAX + 1}],
}  # fmt: skip
"""Reason -> fields that an impression has instead; `...` stands for none."""
TEXTS = {
    Malformed.TOMBSTONE: [b"", None],
    Malformed.TOO_LARGE: [b"x" * (wire.RECORD_BYTES_MAX + 1)],
    Malformed.NOT_JSON: [b"GET / HTTP/1.1", b"2023-11-14,17,0.25", b"{", b'{"a":1,}', b'{"a":1}}', b'["a",]', b" ", b'{"a":"\xff"}'],
    Malformed.NOT_AN_OBJECT: [b'["a"]', b' "a" '],
    Malformed.MISSING_FIELD: [b"{}", b' {"a" : [] } '],
    Malformed.REPEATED_KEY: [b'{"ip":"1.1.1.1","ip":"1.1.1.1"}', b'{"width":null,"ip":5,"\\u0077idth":1}'],
}  # fmt: skip


def test_common_faults_are_named_without_python(monkeypatch):
    """Law: of the usual malformed records the kernel itself names the reason, the one that the slow path gives."""
    found = [
        (reason, json.dumps({k: v for k, v in (wt.IMPRESSION | fields).items() if v is not ...}).encode())
        for reason, kinds in CERTAIN.items()
        for fields in kinds
    ] + [(reason, text) for reason, texts in TEXTS.items() for text in texts]
    expected = [decode_plain(value, b"u-14", 1, wt.LOG_TIME, CONTEXT) for _, value in found]
    assert expected == [reason for reason, _ in found]
    monkeypatch.setattr("adledger.pipeline.stages.decode.decode_plain", None)
    values, keys = [value for _, value in found], [b"u-14"] * len(found)
    decoded = decode(RecordRefs.of(values, keys, log_times=[wt.LOG_TIME] * len(found)), CONTEXT)
    assert decoded.status.tolist() == expected


NAMES = [
    "n" * 32,
    "n" * 33,
    "n" * 300,
    "m" * 33,
    "é" * 16,
    "é" * 17,
    'a"b',
    "site\\_id",
    "\ud800",
    "",
    "\uffff" * 11,
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*NAMES, "site_id", "currency", "x"]), max_size=4), st.integers(0, 2**32))
def test_names_of_any_spelling(names, seed):
    """Law: both paths agree on long names, escapes in names (in those of known fields too), and repeated ones."""
    rng = random.Random(seed)
    members = [(name, json.dumps(value)) for name, value in wt.IMPRESSION.items()]
    members += [(name, str(number)) for number, name in enumerate(names)]
    rng.shuffle(members)

    def spelled(name):
        letters = (f"\\u{ord(c):04x}" if rng.random() < 0.1 else json.dumps(c)[1:-1] for c in name)
        return '"' + "".join(letters) + '"'

    records = ["{" + ",".join(f"{spelled(name)}:{value}" for name, value in members) + "}" for _ in range(3)]
    assert_paths_agree([(record.encode(), b"u-14") for record in records], [0] * 3)


def test_nothing_is_read_far_after_a_record():
    """Law: decode reads at most READ_AHEAD_BYTES after a record, and what it reads there changes nothing."""
    program = [sys.executable, "-m", "tests.support.guarded_decode", "1"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
