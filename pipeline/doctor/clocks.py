"""Whether the clocks agree: ClickHouse's, this machine's, and the brokers' as far as append times show. Pure."""

from adledger.pipeline.doctor.report import Check
from adledger.pipeline.findings import Finding

AREA = "clocks"
_REMEDY = "set the clocks by NTP (chrony), on every machine; or raise clock_skew_seconds_max, which idle lanes lag behind"


def server_check(ahead_ms: int, skew_seconds_max: int) -> Check:
    """Check ClickHouse's clock against this machine's."""
    found = []
    if abs(ahead_ms) > skew_seconds_max * 1000:
        side = "ahead of" if ahead_ms > 0 else "behind"
        found.append(
            Finding(
                f"ClickHouse's clock is {abs(ahead_ms) / 1000:,.1f} s {side} this machine's, more than "
                f"clock_skew_seconds_max = {skew_seconds_max}",
                _REMEDY,
            )
        )
    return Check(AREA, f"ClickHouse's and ours differ by {abs(ahead_ms) / 1000:.1f} s", found)


def broker_check(newest_ms: int, now_ms: int, whose: str, skew_seconds_max: int) -> Check:
    """Check the newest append time (ms) against a clock (`whose`): an append time ahead of it shows a wrong clock.

    One behind it, however far, is no finding: nothing was appended since.
    """
    ahead = newest_ms - now_ms
    found = []
    if ahead > skew_seconds_max * 1000:
        found.append(
            Finding(
                f"the newest record was appended {ahead / 1000:,.1f} s ahead of {whose} clock, more than "
                f"clock_skew_seconds_max = {skew_seconds_max}: a broker's clock, or that one, is wrong",
                _REMEDY,
            )
        )
    relation = "is ahead of" if ahead > 0 else "is not ahead of"
    return Check(AREA, f"the newest append time {relation} {whose} clock", found)
