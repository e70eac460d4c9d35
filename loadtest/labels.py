"""What the generator knows of each record: why it was sent. One label a record; rules are scored by them."""

from enum import IntEnum


class Label(IntEnum):
    """Why a record is there."""

    HONEST = 0
    MALFORMED = 1
    RETRY_AT_ONCE = 2
    RETRY_HOURS = 3
    RETRY_EDGE = 4
    RETRY_BEYOND = 5
    CONFLICT = 6
    RESENT_TEXT = 7


COPY_LABELS = (
    Label.RETRY_AT_ONCE, Label.RETRY_HOURS, Label.RETRY_EDGE,
    Label.RETRY_BEYOND, Label.CONFLICT, Label.RESENT_TEXT,
)  # fmt: skip
"""Labels of copies, in the order of TrafficModel.copy_weights; their codes follow one another."""
