"""An explanation as lines of text, and as JSON."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address
from typing import Any

from adledger.pipeline.explain.evidence import RuleFinding
from adledger.pipeline.explain.explain import Explained
from adledger.pipeline.explain.rows import EventRow, time_text
from adledger.pipeline.ledger.totals import money_text
from adledger.pipeline.rules.registry import RULES
from adledger.schemas.wire import currency_text

UNKNOWN_TEXT = "(its text is not stored)"


def as_lines(e: Explained, topics: Sequence[str]) -> Iterator[str]:
    """Yield an explanation, line by line."""
    row = e.row
    yield f"{row.type_name} of publisher {row.publisher_id}"
    yield f"  class         {row.class_name}" + (f": {e.primary.name}" if e.primary is not None else "")
    yield f"  reasons       {', '.join(r.name for r in row.hits) or 'none'}"
    yield f"  money         {money_text(row.money_nanos)} {currency_text(row.currency_code)}"
    yield f"  event time    {time_text(row.event_time)}"
    yield f"  user          {'no user_id' if row.cookieless else f'user_hash {row.user_hash}'}"
    yield f"  address       {_address(row)}"
    yield f"  user agent    {_text(e.user_agent)}"
    yield f"  page          {_text(e.page_url)}"
    yield f"  of            site {row.site_id}, campaign {row.campaign_id}, creative {row.creative_id}, advertiser {row.advertiser_id}"
    yield from _origin(e, topics)
    yield from _evaluation(e)
    for finding in e.findings:
        if finding.hit:
            yield from _hit(finding)
    missed = [f.reason.name for f in e.findings if not f.hit]
    if missed:
        yield f"  no hit        {', '.join(missed)}"
    if e.differs:
        yield f"  DIFFERS       evaluated again, {', '.join(r.name for r in e.differs)} is not as stored: {e.why_differs}"


def _origin(e: Explained, topics: Sequence[str]) -> Iterator[str]:
    row = e.row
    yield f"  log           {_place(row, topics)}, log time {time_text(row.log_time)}"
    done = (
        "not in the ledger yet"
        if e.ledger is None
        else f"{e.ledger.records_received:,} records, in the ledger"
    )
    yield f"  batch         lane {row.lane}, batch {row.batch_no}, watermark {time_text(row.lane_clock)}: {done}"
    if e.first is not None:
        yield f"  duplicate of  {_place(e.first, topics)}, {e.first.class_name}, {money_text(e.first.money_nanos)}"
    for copy in e.duplicates:
        same = ", ".join(r.name for r in copy.hits) or "the same payload"
        yield f"  duplicate     {_place(copy, topics)}, {money_text(copy.money_nanos)}: {same}"


def _evaluation(e: Explained) -> Iterator[str]:
    if e.evaluator is None or e.rules is None:
        yield f"  evaluated by  {e.row.judge_version:016x}, which the table `judges` lacks: no rules, or not kept then"
        return
    yield f"  evaluated by  {e.evaluator.version:016x}, rules of {e.rules.author}, {e.rules.date}: {e.rules.reason}"
    for name, why in e.evaluator.not_evaluated.items():
        yield f"  not evaluated {name}: {why}"


def _hit(finding: RuleFinding) -> Iterator[str]:
    rule = RULES[finding.reason]
    limits = ", ".join(f"{name} = {value:,}" for name, value in finding.params.items())
    yield f"  hit           {finding.reason.name} ({rule.event_class.name.lower()}, {finding.mode}{'; ' + limits if limits else ''})"
    yield f"                {finding.evidence}"


def as_json(e: Explained, topics: Sequence[str]) -> dict[str, Any]:
    """Return an explanation as one JSON object; hashes and versions as they are stored, times in ISO 8601."""
    row = e.row
    return {
        "event_type": row.type_name, "publisher_id": row.publisher_id, "class": row.class_name,
        "primary_reason": e.primary.name if e.primary is not None else None,
        "reasons": [r.name for r in row.hits], "money": money_text(row.money_nanos),
        "currency": currency_text(row.currency_code), "event_time": time_text(row.event_time),
        "user_hash": None if row.cookieless else row.user_hash, "ip": _address(row),
        "user_agent": _text(e.user_agent), "page_url": _text(e.page_url),
        "site_id": row.site_id, "campaign_id": row.campaign_id, "creative_id": row.creative_id,
        "advertiser_id": row.advertiser_id, "price_micros": row.price_micros,
        **_place_json(row, topics), "log_time": time_text(row.log_time), "lane_clock": time_text(row.lane_clock),
        "ledger": None if e.ledger is None else {
            "ranges": [list(r) for r in e.ledger.ranges], "records_received": e.ledger.records_received,
            "clock_after": time_text(e.ledger.clock_after), "written_at": e.ledger.written_at,
        },
        "duplicate_of": None if e.first is None else _copy_json(e.first, topics),
        "duplicates": [_copy_json(copy, topics) for copy in e.duplicates],
        "judge_version": f"{row.judge_version:016x}",
        "not_evaluated": {} if e.evaluator is None else dict(e.evaluator.not_evaluated),
        "rules": [
            {
                "rule": f.reason.name, "mode": str(f.mode), "hit": f.hit, "evidence": f.evidence, "facts": dict(f.facts),
                "params": dict(f.params),
            }
            for f in e.findings
        ],
        "differs": [r.name for r in e.differs], "why_differs": e.why_differs,
    }  # fmt: skip


def _place(row: EventRow, topics: Sequence[str]) -> str:
    return f"{_topic(row, topics)}, partition {row.lane}, offset {row.offset}"


def _place_json(row: EventRow, topics: Sequence[str]) -> dict[str, Any]:
    return {
        "topic": _topic(row, topics),
        "partition": row.lane,
        "offset": row.offset,
        "batch_no": row.batch_no,
    }


def _copy_json(row: EventRow, topics: Sequence[str]) -> dict[str, Any]:
    return {
        **_place_json(row, topics), "class": row.class_name, "reasons": [r.name for r in row.hits],
        "price_micros": row.price_micros, "log_time": time_text(row.log_time),
    }  # fmt: skip


def _topic(row: EventRow, topics: Sequence[str]) -> str:
    return topics[row.topic] if row.topic < len(topics) else f"topic {row.topic}"


def _address(row: EventRow) -> str:
    address = IPv6Address(row.ip_hi << 64 | row.ip_lo)
    return str(address.ipv4_mapped or address)


def _text(value: bytes | None) -> str:
    """Return a text that is safe on a terminal."""
    if value is None:
        return UNKNOWN_TEXT
    text = value.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) or "(blank)"
