"""Each view equals a plain count of the stored events, to the nano, currency by currency."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from adledger.schemas.classes import CLASS_NAMES, Class, Reason
from adledger.schemas.wire import currency_text
from tests.analysts.conftest import Evaluated

QUARTER_MS = 900_000
NANO = Decimal(1).scaleb(-9)
TYPES = {1: "impression", 2: "click"}
COLUMNS = (
    "lane", "batch_no", "topic", "offset", "lane_clock", "event_time", "event_type_code", "publisher_id", "id_hash",
    "user_hash", "campaign_id", "price_micros", "currency_code", "class_code", "reasons", "money_nanos",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of `events`, as stored; times in ms."""

    lane: int
    batch_no: int
    topic: int
    offset: int
    lane_clock: int
    event_time: int
    event_type_code: int
    publisher_id: int
    id_hash: int
    user_hash: int
    campaign_id: int
    price_micros: int
    currency_code: int
    class_code: int
    reasons: int
    money_nanos: int

    @property
    def period(self) -> int:
        return self.event_time // QUARTER_MS * QUARTER_MS

    @property
    def place(self) -> tuple[int, int, int, int, int]:
        """Return the event's position in its lane's order."""
        return self.lane, self.batch_no, self.lane_clock, self.topic, self.offset


@pytest.fixture(scope="module")
def stored(evaluated: Evaluated) -> list[Stored]:
    columns = ", ".join(
        f"toUnixTimestamp64Milli({c})" if c in {"lane_clock", "event_time"} else c for c in COLUMNS
    )
    rows = evaluated.client.execute(f"SELECT {columns} FROM adledger.events")
    return sorted((Stored(*row) for row in rows), key=lambda e: e.place)


def primary(event: Stored, enforced: int) -> str:
    """Return the first reason by precedence that was enforced."""
    return next((r.name for r in Reason if event.reasons >> r & enforced >> r & 1), "")


def money(nanos: int) -> Decimal:
    return nanos * NANO


def test_the_traffic_covers_every_case(evaluated: Evaluated, stored: list[Stored]) -> None:
    """Every class, two currencies, conflicts, and most rules occur, so that the tests below mean something."""
    assert {e.class_code for e in stored} >= {Class.BILLABLE, Class.DUPLICATE, Class.GIVT, Class.SIVT}
    assert len({e.currency_code for e in stored}) == 2
    assert len({r for e in stored for r in Reason if e.reasons >> r & 1}) >= 12
    assert evaluated.client.execute("SELECT count(DISTINCT judge_version) FROM adledger.events") == [(1,)]


def test_v_events_names_what_is_stored(evaluated: Evaluated, stored: list[Stored]) -> None:
    """It has class, all reasons, the primary one, hints, money and dimension strings of every event."""
    enforced = evaluated.rules.bits("enforce")
    found = {
        (lane, topic, offset): rest
        for lane, topic, offset, *rest in evaluated.client.execute(
            "SELECT lane, topic, offset, class, reasons, primary_reason, hints, money, currency FROM adledger.v_events"
        )
    }
    assert len(found) == len(stored)
    for e in stored:
        names = [r.name for r in Reason if e.reasons >> r & 1]
        hints = [r.name for r in Reason if r > 1 and (e.reasons & ~enforced) >> r & 1]
        expected = [
            CLASS_NAMES[Class(e.class_code)], names, primary(e, enforced), hints, money(e.money_nanos),
            currency_text(e.currency_code),
        ]  # fmt: skip
        assert found[e.lane, e.topic, e.offset] == expected
    texts = "SELECT countIf(xxHash64(user_agent) != ua_hash), countIf(xxHash64(page_url) != page_hash) FROM adledger.v_events"
    assert evaluated.client.execute(texts) == [(0, 0)]


def test_v_reasons_goes_from_gross_to_net(evaluated: Evaluated, stored: list[Stored]) -> None:
    """Events and money by publisher, quarter of an hour, type, currency, step and reason are right, and gross is the sum
    of the rest.
    """
    enforced = evaluated.rules.bits("enforce")
    steps = {
        Class.BILLABLE: "net",
        Class.DUPLICATE: "duplicate",
        Class.EXPIRED: "expired",
        Class.GIVT: "givt",
        Class.SIVT: "sivt",
    }
    expected: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    for e in stored:
        step, reason = steps[Class(e.class_code)], ""
        if step in {"givt", "sivt"}:
            reason = primary(e, enforced)
        elif step == "duplicate" and e.reasons >> Reason.DUPLICATE_CONFLICT & 1:
            reason = Reason.DUPLICATE_CONFLICT.name
        for which in (("gross", ""), (step, reason)):
            key = (e.publisher_id, e.period, TYPES[e.event_type_code], currency_text(e.currency_code), *which)
            expected[key][0] += 1
            expected[key][1] += e.money_nanos
    rows = evaluated.client.execute(
        "SELECT publisher_id, toUnixTimestamp(period) * 1000, event_type, currency, step, reason, events, money "
        "FROM adledger.v_reasons"
    )
    assert {tuple(r[:6]): (r[6], r[7]) for r in rows} == {k: (n, money(m)) for k, (n, m) in expected.items()}
    sums: Counter[tuple[Any, ...]] = Counter()
    for publisher, period, kind, currency, step, _, events, amount in rows:
        for what, value in (("events", events), ("money", amount)):
            sums[publisher, period, kind, currency, what] += value if step == "gross" else -value
    assert not any(sums.values())


def test_v_duplicate_conflicts_has_both_payloads(evaluated: Evaluated, stored: list[Stored]) -> None:
    """Each conflict is beside the last event before it of its identity that is no duplicate, with the differences."""
    firsts: dict[tuple[int, ...], Stored] = {}
    expected = {}
    for e in stored:
        identity = e.lane, e.event_type_code, e.publisher_id, e.id_hash
        if e.class_code != Class.DUPLICATE:
            firsts[identity] = e
        elif e.reasons >> Reason.DUPLICATE_CONFLICT & 1:
            first = firsts[identity]
            expected[e.lane, e.topic, e.offset] = (
                e.price_micros, money(e.money_nanos), first.price_micros, money(first.money_nanos), first.offset, first.batch_no,
                first.price_micros != e.price_micros, first.event_time != e.event_time, first.campaign_id != e.campaign_id,
            )  # fmt: skip
    rows = evaluated.client.execute(
        "SELECT lane, topic, offset, price_micros, money, first_price_micros, first_money, first_offset, first_batch_no, "
        "has(differs, 'price_micros'), has(differs, 'event_time'), has(differs, 'campaign_id'), notEmpty(differs) "
        "FROM adledger.v_duplicate_conflicts"
    )
    assert len(expected) >= 100
    assert {tuple(r[:3]): tuple(r[3:-1]) for r in rows} == expected
    assert all(r[-1] for r in rows)


def test_v_statement_shows_classes_only(evaluated: Evaluated, stored: list[Stored]) -> None:
    """A publisher's statement has the same events and money by class, and nothing about rules."""
    expected: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    for e in stored:
        kind, currency = TYPES[e.event_type_code], currency_text(e.currency_code)
        totals = expected[e.publisher_id, e.period, kind, currency, CLASS_NAMES[Class(e.class_code)]]
        totals[0] += 1
        totals[1] += e.money_nanos
    rows = evaluated.client.execute(
        "SELECT publisher_id, toUnixTimestamp(period) * 1000, event_type, currency, class, events, money "
        "FROM adledger.v_statement"
    )
    assert {tuple(r[:5]): (r[5], r[6]) for r in rows} == {k: (n, money(m)) for k, (n, m) in expected.items()}
    reached = evaluated.client.execute(
        "SELECT table, name FROM system.columns WHERE database = 'adledger' AND table IN ('v_statement', 'rollup_minute')"
    )
    assert not [c for c in reached if "reason" in c[1] or "judge" in c[1] or "rule" in c[1]]
    ((sql,),) = evaluated.client.execute(
        "SELECT as_select FROM system.tables WHERE database = 'adledger' AND name = 'v_statement'"
    )
    assert sql.count("FROM") == 1
    assert "FROM adledger.rollup_minute" in sql


def test_v_events_of_ip_finds_an_address(evaluated: Evaluated) -> None:
    """For sampled addresses, IPv4 and IPv6, it returns exactly the events that have them."""
    some = evaluated.client.execute(
        "SELECT toString(ip), count() FROM adledger.v_events GROUP BY ip ORDER BY cityHash64(ip) LIMIT 8"
    )
    for ip, events in some:
        assert evaluated.client.execute(f"SELECT count() FROM adledger.v_events_of_ip(ip = '{ip}')") == [
            (events,)
        ]
