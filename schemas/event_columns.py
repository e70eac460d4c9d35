"""The columns of a decoded event: their names and numpy types, as the stages pass them on and `events` stores them."""

EVENT_DTYPES: dict[str, str] = {
    "event_type_code": "u1",  # adledger.schemas.wire.EventType
    "event_time": "i8",  # ms since the epoch, UTC
    "publisher_id": "u4",
    "site_id": "u4",
    "campaign_id": "u4",
    "creative_id": "u4",
    "advertiser_id": "u4",
    "placement_id": "u4",  # 0 where absent
    "id_hash": "u8",  # xxHash64, seed 0, of the unescaped bytes; likewise the other hashes
    "user_hash": "u8",
    "ua_hash": "u8",
    "page_hash": "u8",
    "impression_hash": "u8",  # of clicks; 0 on impressions
    "ip_hi": "u8",  # the address as IPv6, big end first; IPv4 as ::ffff:a.b.c.d
    "ip_lo": "u8",
    "price_micros": "u4",
    "currency_code": "u2",  # adledger.schemas.wire.currency_code; the deployment's where absent
    "country_code": "u2",  # adledger.schemas.wire.country_code; 0 where absent or ""
    "width_px": "u2",  # meaningful only with Flag.HAS_WIDTH
    "height_px": "u2",
    "flags": "u2",  # bits: adledger.schemas.wire.Flag
}

WINDOW_COLUMNS = (
    "event_type_code", "event_time", "publisher_id", "campaign_id", "creative_id", "id_hash", "user_hash", "ua_hash",
    "impression_hash", "ip_hi", "ip_lo", "flags",
)  # fmt: skip
"""Columns of EventColumns that windows are made from, beside the watermark."""
