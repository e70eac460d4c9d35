"""Decoding one record on both paths, and making records that differ from a good one in one place."""

import json

from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode, pages, user_agents
from adledger.pipeline.stages.slow_path import decode_plain
from adledger.schemas import wire
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.wire import Malformed
from tests.support.wire_texts import CLICK, IMPRESSION, LANE, LOG_TIME, PARTITIONS

CONTEXT = DecodeContext(
    lane=LANE, partitions=PARTITIONS, kinds=(1, 2, 0), default_currency=wire.currency_code("JPY")
)
IMPRESSIONS, CLICKS, BOTH = 0, 1, 2
KEY = b"u-14"


def decode_one(value, key=KEY, topic=IMPRESSIONS, context=CONTEXT):
    """Return (reason, columns by name, user agent, page) of one record, which both paths must agree on."""
    decoded = decode(RecordRefs.of([value], [key], topics=[topic], log_times=[LOG_TIME]), context)
    plain = decode_plain(value, key, context.kinds[topic], LOG_TIME, context)
    if decoded.status[0]:
        assert plain is Malformed(decoded.status[0])
        return plain, None
    event = {name: int(getattr(decoded.columns, name)[0]) for name in EVENT_DTYPES}
    event |= {"user_agent": user_agents(decoded, [0])[0], "page_url": pages(decoded, [0])[0]}
    assert event == plain._asdict()
    return Malformed.OK, event


def text_of(event, **changed):
    return json.dumps(event | changed).encode()


def without(event, name):
    return text_of({k: v for k, v in event.items() if k != name})


def raw(event, name, literal):
    """Return the event with a literal, which need not be JSON, as the value of one field."""
    return text_of(event, **{name: "@"}).replace(b'"@"', literal)


def nest(levels):
    """Return the event with an unknown field, so that its depth is `levels`."""
    return raw(IMPRESSION, "x", b"[" * (levels - 1) + b"]" * (levels - 1))


GOOD = text_of(IMPRESSION)
OPTIONAL = ["placement_id", "currency", "country", "width", "height", "is_prefetch", "is_test"]
REQUIRED = [name for name in CLICK if name not in OPTIONAL]
INTEGERS = [name for name, value in IMPRESSION.items() if type(value) is int]
TEXTS = [name for name, value in CLICK.items() if type(value) is str]
BOOLEANS = ["is_prefetch", "is_test"]
