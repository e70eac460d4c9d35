"""Rules of rates per user, in sliding windows. These rules skip events without a user id.

An address alone would be an office or a carrier: clicks repeated within a minute by address are 43-47 % of a real
click log.
"""

from adledger.pipeline.rules.rule import Mode, Param, Rule, RuleInput
from adledger.schemas.classes import Reason

MINUTE_MS = 60_000

RATE_RULES = (
    Rule(
        Reason.USER_VELOCITY, RuleInput.USERS,
        catches="A user with more events in a minute or so, or more clicks in an hour or so, than a person makes; "
        "those beyond the limit are tagged, those before it stay. Windows are of log time and slide.",
        origin="MRC, sophisticated: outlier activity.",
        false_positives="A phone that was offline and delivers hours at once; one cookie on many screens, as kiosks "
        "have it.",
        params=(
            Param("window_seconds", 60, 1, 86_400, "length of the window in which events are counted", 1_000),
            Param("events_max", 120, 1, 1_000_000, "events in window_seconds that are not tagged"),
            Param("clicks_window_minutes", 60, 1, 1440, "length of the window in which clicks are counted", MINUTE_MS),
            Param("clicks_max", 12, 1, 1_000_000, "clicks in clicks_window_minutes that are not tagged"),
        ),
    ),
    Rule(
        Reason.USER_MANY_IPS, RuleInput.USERS,
        catches="A user who comes from one network more than the limit within the window: an event is tagged where its "
        "network is not among those that the user was last seen in. Networks are /24 of IPv4, /64 of IPv6, so "
        "that carriers and privacy addresses count once.",
        origin="MRC, sophisticated: one cookie on many machines.",
        false_positives="Someone on a train, with a VPN that changes, or behind a carrier that spreads its users wide.",
        params=(
            Param("window_minutes", 60, 1, 1440, "length of the window in which networks are counted", MINUTE_MS),
            Param("networks_max", 6, 1, 7, "networks in the window that are not tagged"),
        ),
    ),
    Rule(
        Reason.PERIODIC, RuleInput.USERS,
        catches="A user whose last eight impressions are equally far apart, by event time.",
        origin="MRC, sophisticated: automated activity.",
        false_positives="Ads that refresh at intervals on an open page: so it is a hint.",
        params=(
            Param("horizon_minutes", 60, 1, 1440, "the eight impressions lie within it", MINUTE_MS),
            Param("gap_min_ms", 1_000, 1, 3_600_000, "gaps below this are one page's ads"),
            Param("tolerance_percent", 2, 0, 50, "the longest gap exceeds the shortest by at most this"),
        ),
        mode=Mode.FLAG, flag_only=True,
    ),
)  # fmt: skip
