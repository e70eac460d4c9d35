"""RFC 3339 timestamps, compiled: as adledger.pipeline.stages.rfc3339, from 1970 on."""

from adledger.pipeline.kernels.intrinsics import digits16, load8, lowest_bit
from adledger.pipeline.kernels.jit import kernel
from adledger.pipeline.kernels.numbers import number_at

_DIGITS_OF_DATE_AND_TIME = 0b11011011_01101111  # of "2023-11-14T22:13", the first byte's bit the lowest
_DIGITS_OF_OFFSET, _DIGITS_OF_BASIC_OFFSET = 0b11011, 0b1111  # of "01:00" and of "0100"
_DAY_SECONDS = 86_400
_EPOCH_DAY = 719_468  # 1970-01-01, counted from 0000-03-01
_DASH, _COLON, _DOT, _PLUS, _T, _Z, _SPACE = (ord(c) for c in "-:.+TZ ")
_TO_UPPER = 0xDF


@kernel
def _days_from_civil(year, month, day):
    """Return days since the epoch, or -1 where the day is not in the (Gregorian) calendar, or before 1970."""
    if month < 1 or month > 12 or year < 1970:
        return -1
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days_in_month = 30 + ((month + (month >> 3)) & 1)
    if month == 2:
        days_in_month = 29 if is_leap else 28
    if day < 1 or day > days_in_month:
        return -1
    # Years begin in March here, so that the leap day is the last of a year; five months from March on have 153 days.
    if month <= 2:
        year -= 1
        month += 12
    day_of_year = (153 * (month - 3) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - _EPOCH_DAY


@kernel
def _after_leap_second(seconds, year):
    """Whether the second since the epoch begins a January or July, as after a leap second; `year` is that of the local time."""
    days, rest = seconds // _DAY_SECONDS, seconds % _DAY_SECONDS
    return rest == 0 and (
        days == _days_from_civil(year, 1, 1)
        or days == _days_from_civil(year, 7, 1)
        or days == _days_from_civil(year + 1, 1, 1)
    )


@kernel
def parse_timestamp(p, stop):  # noqa: PLR0911
    """Return ms since the epoch of the timestamp [p, stop), or -1 where it isn't one (or is before 1970)."""
    if stop - p < 20:
        return -1
    separator = load8(p + 10)
    if (
        digits16(p) != _DIGITS_OF_DATE_AND_TIME
        or load8(p + 4) != _DASH
        or load8(p + 7) != _DASH
        or (separator & _TO_UPPER != _T and separator != _SPACE)
        or load8(p + 13) != _COLON
        or load8(p + 16) != _COLON
        or digits16(p + 17) & 3 != 3
    ):
        return -1
    year = number_at(p, 4)
    days = _days_from_civil(year, number_at(p + 5, 2), number_at(p + 8, 2))
    hour, minute, second = number_at(p + 11, 2), number_at(p + 14, 2), number_at(p + 17, 2)
    if days < 0 or hour > 23 or minute > 59 or second > 60:
        return -1
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    p += 19
    milliseconds = 0
    if load8(p) == _DOT:
        digits = lowest_bit(~digits16(p + 1))
        if digits == 0:
            return -1
        milliseconds = number_at(p + 1, min(digits, 3))
        for _ in range(digits, 3):
            milliseconds *= 10
        p += 1 + digits
        while digits == 16:
            digits = lowest_bit(~digits16(p))
            p += digits
    zone = load8(p)
    if zone & _TO_UPPER == _Z:
        if p + 1 != stop or (second == 60 and not _after_leap_second(seconds, year)):
            return -1
        return seconds * 1000 + milliseconds
    if load8(p + 3) == _COLON:
        shaped = p + 6 == stop and digits16(p + 1) & 0b11111 == _DIGITS_OF_OFFSET
        minutes = number_at(p + 4, 2)
    else:
        shaped = p + 5 == stop and digits16(p + 1) & 0b1111 == _DIGITS_OF_BASIC_OFFSET
        minutes = number_at(p + 3, 2)
    hours = number_at(p + 1, 2)
    if not shaped or (zone != _PLUS and zone != _DASH) or hours > 23 or minutes > 59:  # noqa: PLR1714
        return -1
    offset = (hours * 60 + minutes) * 60
    seconds += offset if zone == _DASH else -offset
    if second == 60 and not _after_leap_second(seconds, year):
        return -1
    return seconds * 1000 + milliseconds
