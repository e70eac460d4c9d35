"""Digest definitions: which columns of a batch's rows its digests cover. A ledger row says which one its digests follow.

A stored definition never changes, since ledger rows of years ago are checked by theirs. A column that is added to a table
gets a new definition, so that adding it does not call history altered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DigestDefinition:
    """Table -> the columns whose values are folded, in this order.

    `unless` names columns that are folded only where they differ from a value: their digests were stored before they existed.
    """

    columns: Mapping[str, tuple[str, ...]]
    unless: Mapping[str, tuple[str, int]] = field(default_factory=dict)


_FIRST_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "events": (
        "event_type_code", "event_time", "publisher_id", "site_id", "campaign_id", "creative_id", "advertiser_id",
        "placement_id", "id_hash", "user_hash", "ua_hash", "page_hash", "impression_hash", "ip_hi", "ip_lo",
        "price_micros", "currency_code", "country_code", "width_px", "height_px", "flags", "topic", "offset", "log_time",
        "lane_clock", "class_code", "reasons", "money_nanos", "judge_version",
    ),
    "dead_letters": ("topic", "offset", "log_time", "lane_clock", "reason_code", "key", "value", "records"),
}  # fmt: skip

DEFINITIONS: Mapping[int, DigestDefinition] = {
    1: DigestDefinition(_FIRST_COLUMNS, unless={"dead_letters": ("records", 1)}),
    2: DigestDefinition(_FIRST_COLUMNS),
}
"""Number, as ledger rows store it -> definition.

From 2 on, `flags` has AFTER_CLOSE exactly where the rule of adledger.schemas.periods gives it.
"""

FIRST = 1
"""The definition of ledger rows from before they named one, and of v_batch_digests, which overrides name rows by."""

WITH_AFTER_CLOSE = 2
"""The first definition whose rows are marked as after close by the rule."""

CURRENT = max(DEFINITIONS)
"""The definition that this release writes. It covers every column of the tables that it covers at all."""
