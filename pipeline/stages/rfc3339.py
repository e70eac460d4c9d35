"""RFC 3339 timestamps as milliseconds since the epoch; offsets also without a colon, as `%z` and Java's `Z` write them."""

import re
from datetime import date

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DAY_SECONDS = 86_400


def parse_ms(text: str) -> int | None:
    """Return ms since the epoch, UTC, or None if the text is not an RFC 3339 date-time.

    Date and time are separated by "T", "t" or one space; the zone is "Z", "z" or an offset up to 23:59, with or without
    its colon, and may not be absent. Fractions of a second have any number of digits; anything below a millisecond is cut off.
    Second 60 is accepted where leap seconds occur, 23:59:60 UTC at the end of June and December, and equals the
    second after it, as in POSIX time.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, zone_hours, zone_minutes = match.groups()[6:]
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None
    seconds = days * _DAY_SECONDS + hour * 3600 + minute * 60 + second
    if sign is not None:
        if int(zone_hours) > 23 or int(zone_minutes) > 59:
            return None
        offset = int(zone_hours) * 3600 + int(zone_minutes) * 60
        seconds -= offset if sign == "+" else -offset
    if second == 60 and not _after_leap_second(seconds):
        return None
    return seconds * 1000 + int(((fraction or "") + "000")[:3])


def _after_leap_second(seconds: int) -> bool:
    days, rest = divmod(seconds, _DAY_SECONDS)
    ordinal = days + _EPOCH_ORDINAL
    if rest or not 1 <= ordinal <= date.max.toordinal():  # a day before the year 1, or after 9999
        return False
    after = date.fromordinal(ordinal)
    return (after.month, after.day) in {(1, 1), (7, 1)}
