"""Why the generator sent each record: one label per record, by which rules are scored."""

from enum import IntEnum


class Label(IntEnum):
    """Why a record was sent."""

    HONEST = 0
    MALFORMED = 1
    RETRY_AT_ONCE = 2
    RETRY_HOURS = 3
    RETRY_EDGE = 4
    RETRY_BEYOND = 5
    CONFLICT = 6
    RESENT_TEXT = 7
    RETRY_RESTART = 8
    # attacks: what the rules must find
    REPLAY = 16
    DATACENTRE_BOT = 17
    IMPOSTOR = 18
    DOUBLE_CLICK = 19
    CLICK_FLOOD = 20
    INJECTED_CLICK = 21
    PRICE_CONFLICT = 22
    REPEAT_CLICK = 23
    SPLICED_CLICK = 24
    HIDDEN_AD = 25
    COOKIE_FARM = 26
    NAMELESS_BOT = 27
    LIBRARY_BOT = 28
    SPOOFED_ADDRESS = 29
    PREFETCHER = 30
    TEST_TRAFFIC = 31
    GHOST_PUBLISHER = 32
    SUSPENDED_PUBLISHER = 33
    ORPHAN_CLICK = 34
    LATE_CLICK = 35
    CLOCKWORK = 36
    CRAWLER = 37
    # honest look-alikes: what the rules must not tag
    OFFICE = 48
    CARRIER_NAT = 49
    DOUBLE_TAP = 50
    SLOW_PHONE = 51


COPY_LABELS = (
    Label.RETRY_AT_ONCE, Label.RETRY_HOURS, Label.RETRY_EDGE,
    Label.RETRY_BEYOND, Label.CONFLICT, Label.RESENT_TEXT, Label.RETRY_RESTART,
)  # fmt: skip
"""Labels of copies, in the order of TrafficModel.copy_weights; their codes follow one another."""
