"""Evaluation: the class, reasons and money of every record. The first class that applies wins.

In order: malformed, duplicate, expired, givt, sivt, otherwise billable. All rules run on every decodable event, so duplicates
and expired events show their hits too; the rule set decides which rules change the class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xxhash

from adledger.pipeline.records.columns import I64, U8, U64, Decoded
from adledger.pipeline.stages.dedupe import Duplicates
from adledger.schemas.classes import Class, Reason
from adledger.schemas.wire import NANOS_PER_MICRO_CPC, NANOS_PER_MICRO_CPM, EventType, Flag

CONTRACT_VERSION = xxhash.xxh64_intdigest(b"adledger judge 1: contract, no rules")
"""The version of the contract alone, without rules; a rule evaluator has its own (adledger.pipeline.rules.compiled)."""


@dataclass(frozen=True, slots=True)
class RuleHits:
    """The rules' hits on n records: bits of Reason u64[n]; the bits of the enforced rules, by class.

    `not_evaluated`: rule -> the number of events on which it could not be evaluated.
    """

    reasons: U64
    givt: int = 0
    sivt: int = 0
    not_evaluated: Mapping[Reason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """n rows: class_code u8 (adledger.schemas.classes.Class), reasons u64 (bits of Reason), money_nanos i64 (0 if malformed)."""

    class_code: U8
    reasons: U64
    money_nanos: I64


def evaluate(
    decoded: Decoded,
    clock: I64,
    duplicates: Duplicates,
    allowed_lateness_ms: int,
    rules: RuleHits | None = None,
) -> Verdicts:
    """Return the verdict of each record; `clock` is the watermark (ms) at it. `hits` None: no rules."""
    columns = decoded.columns
    class_code = np.full(len(clock), Class.BILLABLE, np.uint8)
    if rules is not None:
        class_code[rules.reasons & np.uint64(rules.sivt) != 0] = Class.SIVT
        class_code[rules.reasons & np.uint64(rules.givt) != 0] = Class.GIVT
    class_code[clock - columns.event_time > allowed_lateness_ms] = Class.EXPIRED
    class_code[duplicates.duplicate != 0] = Class.DUPLICATE
    class_code[decoded.status != 0] = Class.MALFORMED
    misrouted = (columns.flags.astype(np.uint64) >> np.uint64(Flag.MISROUTED)) & np.uint64(1)
    reasons = (misrouted << np.uint64(Reason.MISROUTED)) | (
        duplicates.conflict.astype(np.uint64) << np.uint64(Reason.DUPLICATE_CONFLICT)
    )
    if rules is not None:
        reasons |= rules.reasons
    click = columns.event_type_code == EventType.CLICK
    per_micro = np.where(click, np.int64(NANOS_PER_MICRO_CPC), np.int64(NANOS_PER_MICRO_CPM))
    money = columns.price_micros.astype(np.int64) * per_micro
    return Verdicts(class_code, reasons, money)
