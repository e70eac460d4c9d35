"""Why a record is malformed, in words: the reason is the decoder's, and the named field is the one at fault."""

import json
import random

import pytest

from adledger.pipeline.stages.malformed import FIELDS, publisher_of, refusal_of
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.schemas.wire import Malformed, currency_code
from tests.support import wire_texts as wt

CONTEXT = DecodeContext(wt.LANE, wt.PARTITIONS, (1, 2, 0), currency_code("USD"))
OF_A_FIELD = {
    Malformed.REPEATED_KEY, Malformed.MISSING_FIELD, Malformed.WRONG_TYPE, Malformed.OUT_OF_RANGE, Malformed.WRONG_TOPIC,
    Malformed.FROM_THE_FUTURE,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_words_agree_with_the_decoder(seed):
    """On spoiled events of every kind the reason is the same, or none; with a field wherever one is at fault."""
    rng = random.Random(seed)
    for _ in range(1_000):
        value, key = wt.fuzzed(rng)
        kind = rng.randrange(3)
        decided = decode_plain(value, key, kind, wt.LOG_TIME, CONTEXT)
        refusal = refusal_of(value, kind, wt.LOG_TIME)
        if not isinstance(decided, Malformed):
            assert refusal is None
            continue
        assert refusal is not None
        assert refusal.reason == decided
        assert bool(refusal.field) == (decided in OF_A_FIELD), (value, refusal)
        assert len(str(refusal)) < 400
        publisher_of(value)


@pytest.mark.parametrize("name", [n for n in FIELDS if n != "impression_id"])
@pytest.mark.parametrize(
    "wrong", [None, [], -1, "x" * 3_000, 10**300], ids=["null", "array", "negative", "long text", "huge"]
)
def test_the_field_at_fault_is_named(name, wrong):
    """For an event with one wrong field the words name it, what was found and what is allowed."""
    text = json.dumps(wrong)
    value = wt.json_text(
        [*wt.members_of({n: v for n, v in wt.IMPRESSION.items() if n != name}), (json.dumps(name), text)]
    )
    refusal = refusal_of(value.encode(), 0, wt.LOG_TIME)
    assert refusal is not None
    assert (refusal.field, refusal.allowed) == (name, FIELDS[name].allowed)
    assert refusal.found


def test_publishers_are_read_where_they_can_be():
    """They are read from any JSON object, however malformed otherwise."""
    assert publisher_of(b'{"publisher_id": 7, "ip": []}') == 7
    for value in (
        None,
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"publisher_id": "7"}',
        b'{"publisher_id": true}',
        b'{"publisher_id": -1}',
    ):
        assert publisher_of(value) is None
