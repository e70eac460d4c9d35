"""Classes and reasons: what becomes of a record. The numbers are stored and never change."""

from enum import IntEnum


class Class(IntEnum):
    """Exactly one for each record: the first that applies of malformed, duplicate, expired, givt, sivt, billable.

    `LOST` counts offsets that an operator gave up; it is outside the sum that makes records_received.
    """

    BILLABLE = 1
    DUPLICATE = 2
    GIVT = 3
    SIVT = 4
    EXPIRED = 5
    MALFORMED = 6
    LOST = 7


CLASS_NAMES = {c: c.name.lower() for c in Class}


class Reason(IntEnum):
    """Bit numbers in `events.reasons` (UInt64)."""

    MISROUTED = 0  # the key, or the partition for that key, is not the contract's; still counted once
    DUPLICATE_CONFLICT = 1  # a duplicate whose payload differs from the first's
    # general invalid traffic: lists and parameters
    UA_BLANK = 8
    UA_KNOWN_BOT = 9
    UA_NON_BROWSER = 10
    IP_DATACENTER = 11
    IP_RESERVED = 12
    CRAWLER_IMPOSTOR = 13
    PREFETCH = 14
    TEST_TRAFFIC = 15
    INVALID_PLACEMENT = 16
    UNKNOWN_PUBLISHER = 17
    PUBLISHER_SUSPENDED = 18
    # sophisticated: clicks
    CLICK_NO_IMPRESSION = 32
    CLICK_TOO_FAST = 33
    CLICK_TOO_LATE = 34
    DOUBLE_CLICK = 35
    REPEAT_CLICK = 36
    CLICK_MISMATCH = 37
    # sophisticated: rates
    USER_VELOCITY = 48
    USER_MANY_IPS = 49
    PERIODIC = 50
