"""The rule evaluator as a whole: lists, parameters and windows together equal their plain twins, and classes follow."""

import functools
from datetime import date

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.lists.load import Lists, load_lists
from adledger.pipeline.lists.publishers import PublisherSnapshot, PublisherStatus
from adledger.pipeline.records.columns import Decoded, RecordRefs
from adledger.pipeline.rules import plain
from adledger.pipeline.rules.compiled import LaneEvaluator, RuleEvaluator
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.rules.plain_events import EventFacts, event_hits
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.windows import WINDOWED
from adledger.pipeline.stages.dedupe import Duplicates
from adledger.pipeline.stages.evaluate import evaluate
from adledger.schemas.classes import Class, Reason
from adledger.schemas.wire import Flag
from tests.properties.test_rules_windows import DAY_MS, START_MS, histories, rows_of

AGENTS = (
    b"", b"-", b"curl/8.5.0",
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
)  # fmt: skip
STATUSES = {1: PublisherStatus.ACTIVE, 2: PublisherStatus.SUSPENDED}
STATED = st.tuples(
    st.integers(0, len(AGENTS) - 1), st.integers(0, 15), st.integers(0, 3), st.integers(0, 3), st.booleans()
)
PARAMS = {r: s.params for r, s in load_rules(DEFAULT).rules.items()}


@functools.cache
def lists() -> Lists:
    return load_lists(date(2026, 1, 15), age_days_max=3_650)


@settings(deadline=None, max_examples=40)
@given(histories(steps=st.sampled_from([0, 300, 700, 90_000]), size=25), st.data())
def test_the_evaluator_equals_the_plain_rules(events, data):
    """Hits are equal for every decodable event, duplicates too; the class follows precedence; malformed ones leave no
    trace.
    """
    n = len(events)
    stated = [data.draw(STATED, label="stated") for _ in range(n)]
    rows = rows_of(events)
    c, status = rows.columns, np.array([10 * malformed for *_, malformed in stated], np.uint8)
    agents = np.array([agent for agent, *_ in stated], np.int64)
    c.ua_hash[:] = agents  # as many hashes as texts
    c.publisher_id[:] += np.uint32(1)  # 1 and 2: active and suspended
    c.flags[:] |= np.array([flags for _, flags, *_ in stated], np.uint16)
    c.width_px[:] = np.array([width for _, _, width, *_ in stated], np.uint16)
    c.height_px[:] = np.array([height for _, _, _, height, _ in stated], np.uint16)
    none = np.full(n, -1, np.int32)
    texts = {i: (AGENTS[agents[i]], b"") for i in range(n)}
    decoded = Decoded(RecordRefs.of([b""] * n, [None] * n), c, status, none, none, none, none, texts)
    snapshot = PublisherSnapshot(STATUSES)
    whole = RuleEvaluator(load_rules(DEFAULT), lists(), snapshot)
    assert not whole.not_evaluated
    found = LaneEvaluator(whole).hits(decoded, rows.clock, rows.duplicate.view(np.uint8))
    user_agents = lists().user_agents.classify(AGENTS)
    addresses = lists().addresses.classify(c.ip_hi, c.ip_lo)
    duplicates = Duplicates(rows.duplicate.view(np.uint8), np.zeros(n, np.uint8))
    classes = evaluate(decoded, rows.clock, duplicates, DAY_MS, found).class_code.tolist()
    earlier = []
    for i, e in enumerate(events):
        if status[i]:
            assert (found.reasons[i], classes[i]) == (0, Class.MALFORMED)
            continue
        flags = int(c.flags[i])
        facts = EventFacts(
            int(user_agents[agents[i]]), int(addresses[i]), STATUSES[int(c.publisher_id[i])], flags,
            int(c.width_px[i]) if flags >> Flag.HAS_WIDTH & 1 else None,
            int(c.height_px[i]) if flags >> Flag.HAS_HEIGHT & 1 else None,
        )  # fmt: skip
        seen = plain.EventView(
            e.event_type, e.event_time, e.clock, e.publisher + 1, e.campaign, e.creative, e.id_hash, e.impression_hash,
            e.user, e.cookieless, e.ip, int(agents[i]), e.duplicate,
        )  # fmt: skip
        hits = {Reason(r) for r in WINDOWED if plain.PLAIN[r](earlier, seen, PARAMS[r])}
        hits |= event_hits(facts, PARAMS[Reason.INVALID_PLACEMENT]["side_px_max"])
        assert int(found.reasons[i]) == sum(1 << r for r in hits)
        enforced = [
            RULES[r].event_class for r in RULES if r in hits and whole.rules.rules[r].mode == Mode.ENFORCE
        ]
        valid = enforced[0] if enforced else Class.BILLABLE
        assert classes[i] == (Class.DUPLICATE if e.duplicate else valid)
        if not e.duplicate:
            earlier.append(seen)


def test_what_is_not_evaluated_is_counted():
    """Without lists and publishers, each decodable event counts for each rule that needs them."""
    rows = rows_of([plain.EventView(1, START_MS, START_MS, 1, 1, 1, i, 0, 1, False, 1, 0) for i in range(5)])
    status, none = np.array([0, 0, 0, 0, 3], np.uint8), np.zeros(5, np.int32)
    decoded = Decoded(RecordRefs.of([b""] * 5, [None] * 5), rows.columns, status, none, none, none, none, {})
    blind = RuleEvaluator(load_rules(DEFAULT))
    hits = LaneEvaluator(blind).hits(decoded, rows.clock, np.zeros(5, np.uint8))
    assert hits.not_evaluated == dict.fromkeys(blind.not_evaluated, 4)
    assert set(blind.not_evaluated) == {
        Reason.UA_BLANK, Reason.UA_KNOWN_BOT, Reason.UA_NON_BROWSER, Reason.CRAWLER_IMPOSTOR,
        Reason.IP_DATACENTER, Reason.IP_RESERVED, Reason.UNKNOWN_PUBLISHER, Reason.PUBLISHER_SUSPENDED,
    }  # fmt: skip
