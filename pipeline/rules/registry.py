"""All rules by name, and the order in which they explain a verdict.

Precedence is the order of the reasons' numbers: general invalid traffic before sophisticated, lists before clicks
before rates. The primary reason of an event is the lowest of its bits whose rule its evaluator enforced, so it
follows from `reasons` and the evaluator version, and needs no column of its own:

    bitPositionsToArray(bitAnd(reasons, enforced))[1]      in SQL, with `enforced` of the evaluator version
"""

from collections.abc import Mapping

import numpy as np

from adledger.pipeline.records.columns import I64, U64
from adledger.pipeline.rules.clicks import CLICK_RULES
from adledger.pipeline.rules.givt import GIVT_RULES
from adledger.pipeline.rules.rates import RATE_RULES
from adledger.pipeline.rules.rule import Rule
from adledger.schemas.classes import Reason

RULES: Mapping[Reason, Rule] = {rule.reason: rule for rule in (*GIVT_RULES, *CLICK_RULES, *RATE_RULES)}
"""Reason -> rule, by precedence."""

assert list(RULES) == sorted(RULES), "rules are in the order of their precedence"

RULE_BITS = sum(1 << reason for reason in RULES)
"""The bits of `events.reasons` that rules set."""

NO_REASON = -1


def primary_reasons(reasons: U64, enforced: int) -> I64:
    """Return the primary reason (bit number) of each of n bit sets, NO_REASON where no enforced rule hit."""
    hit = reasons & np.uint64(enforced & RULE_BITS)
    lowest = hit & (~hit + np.uint64(1))
    places: I64 = np.bitwise_count(lowest - np.uint64(1)).astype(np.int64)
    return np.where(hit == 0, np.int64(NO_REASON), places)
