"""Stored events as explanations need them."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime

from adledger.pipeline.rules.plain import EventView
from adledger.schemas.classes import CLASS_NAMES, Class, Reason
from adledger.schemas.wire import EventType, Flag


@dataclass(frozen=True, slots=True)
class EventRow:
    """A row of `events`: integers as they are stored, times in ms since the epoch."""

    lane: int
    batch_no: int
    topic: int
    offset: int
    log_time: int
    lane_clock: int
    event_type_code: int
    event_time: int
    publisher_id: int
    site_id: int
    campaign_id: int
    creative_id: int
    advertiser_id: int
    id_hash: int
    user_hash: int
    ua_hash: int
    page_hash: int
    impression_hash: int
    ip_hi: int
    ip_lo: int
    price_micros: int
    currency_code: int
    width_px: int
    height_px: int
    flags: int
    class_code: int
    reasons: int
    money_nanos: int
    judge_version: int

    @property
    def cookieless(self) -> bool:
        """Whether user_id was empty."""
        return bool(self.flags >> Flag.KEYED_BY_IP & 1)

    @property
    def type_name(self) -> str:
        """Return impression or click."""
        return EventType(self.event_type_code).name.lower()

    @property
    def class_name(self) -> str:
        """Name of the class."""
        return CLASS_NAMES[Class(self.class_code)]

    @property
    def hits(self) -> tuple[Reason, ...]:
        """All reasons, by precedence."""
        return tuple(r for r in Reason if self.reasons >> r & 1)

    @property
    def width(self) -> int | None:
        """Width in px, None where it was not stated."""
        return self.width_px if self.flags >> Flag.HAS_WIDTH & 1 else None

    @property
    def height(self) -> int | None:
        """Height in px, None where it was not stated."""
        return self.height_px if self.flags >> Flag.HAS_HEIGHT & 1 else None

    @property
    def event(self) -> EventView:
        """Return the event as the rules see it."""
        return EventView(
            self.event_type_code, self.event_time, self.lane_clock, self.publisher_id, self.campaign_id, self.creative_id,
            self.id_hash, self.impression_hash, 0 if self.cookieless else self.user_hash, self.cookieless,
            self.ip_hi << 64 | self.ip_lo, self.ua_hash, self.class_code == Class.DUPLICATE,
        )  # fmt: skip


COLUMNS = tuple(f.name for f in fields(EventRow))
TIMES = frozenset({"log_time", "lane_clock", "event_time"})


def time_text(ms: int) -> str:
    """Return a time as ISO 8601, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
