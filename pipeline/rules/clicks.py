"""Rules of clicks: against their impression, and against the clicks before them."""

from adledger.pipeline.rules.rule import Mode, Param, Rule, RuleInput
from adledger.schemas.classes import Reason

MINUTE_MS = 60_000


def _horizon(meaning: str, default: int = 60) -> Param:
    return Param("horizon_minutes", default, 1, 1440, meaning, MINUTE_MS)


_OF_IMPRESSION = _horizon("how long an impression is remembered for its clicks")

CLICK_RULES = (
    Rule(
        Reason.CLICK_NO_IMPRESSION, RuleInput.IMPRESSIONS,
        catches="A click whose impression did not come before it in its lane, within the horizon.",
        origin="MRC click measurement guidelines: a click belongs to an ad that was served.",
        false_positives="Many: a cookie or address that changed in between moves the click into another lane, and "
        "the log may have taken the click first. So it is a hint here, and enforced later, across lanes.",
        params=(_OF_IMPRESSION,), mode=Mode.FLAG, flag_only=True,
    ),
    Rule(
        Reason.CLICK_TOO_FAST, RuleInput.IMPRESSIONS,
        catches="A click sooner after its impression than a hand can be, by the event times of both. Where they say "
        "that the click came first, the producers' clocks disagree and the log times decide.",
        origin="MRC, sophisticated: injected clicks; human reaction to something new takes more than 250 ms.",
        false_positives="Impressions that are counted late, on full view; producers that stamp both when they send.",
        params=(_OF_IMPRESSION, Param("gap_min_ms", 500, 1, 60_000, "a click after less than this is too fast")),
    ),
    Rule(
        Reason.CLICK_TOO_LATE, RuleInput.IMPRESSIONS,
        catches="A click longer after its impression than an ad stays in view.",
        origin="Click injection and replayed click addresses; networks let click addresses expire.",
        false_positives="A page that stays open over lunch and is then read on: so it is a hint by default.",
        params=(_OF_IMPRESSION, Param("gap_max_minutes", 30, 1, 1440, "a click after more than this is too late")),
        mode=Mode.FLAG,
    ),
    Rule(
        Reason.DOUBLE_CLICK, RuleInput.CLICKS,
        catches="A second click of the same user on the same creative within the time of a double click; the second "
        "is tagged, the first stays. Users without an id: same address, user agent and impression.",
        origin="MRC click measurement guidelines: multiple clicks are one. On a real click log 3 % of clicks.",
        false_positives="Nervous thumbs tap twice without any fraud: the second tap is still no second visit, "
        "and is not billed. The first tap, its impression and the user are left alone.",
        params=(
            _horizon("how long the last click is remembered, however late the next one arrives", 10),
            Param("within_ms", 2_000, 1, 60_000, "clicks at most this far apart, by event time, are one"),
        ),
    ),
    Rule(
        Reason.REPEAT_CLICK, RuleInput.CLICKS,
        catches="More clicks on one impression than a person makes; those beyond the limit are tagged.",
        origin="MRC, sophisticated: repeated clicks on one ad.",
        false_positives="Someone who returns to the page repeatedly and clicks each time.",
        params=(
            Param("window_minutes", 60, 1, 1440, "length of the window in which clicks are counted", MINUTE_MS),
            Param("clicks_max", 3, 1, 1_000, "clicks on one impression that are not tagged"),
        ),
    ),
    Rule(
        Reason.CLICK_MISMATCH, RuleInput.IMPRESSIONS,
        catches="A click that names another campaign than its impression, or another publisher though the same person "
        "saw the impression.",
        origin="Stolen or spliced click addresses.",
        false_positives="A producer that fills in the campaign at the click: fix the producer.",
        params=(_OF_IMPRESSION,),
    ),
)  # fmt: skip
