"""Rules of general invalid traffic: by lists, and by what the event says of itself."""

from adledger.pipeline.rules.rule import Param, Rule, RuleInput
from adledger.schemas.classes import Reason

GIVT_RULES = (
    Rule(
        Reason.UA_BLANK, RuleInput.USER_AGENTS,
        catches="An event without a user agent: empty, or the `-` that log formats write for none.",
        origin="MRC invalid traffic guidelines, general: missing or non-standard user agents.",
        false_positives="Players and apps whose developer never set one; they should.",
    ),
    Rule(
        Reason.UA_KNOWN_BOT, RuleInput.USER_AGENTS,
        catches="A user agent that names a known crawler, monitor or preview fetcher.",
        origin="After the idea of the IAB/ABC spiders and bots list; the list's package and version are part of the evaluator version.",
        false_positives="Browsers whose text contains a bot's name, as in-app browsers of chat programs may.",
    ),
    Rule(
        Reason.UA_NON_BROWSER, RuleInput.USER_AGENTS,
        catches="HTTP libraries, command line tools and headless browsers. The general detectors see the first 256 characters.",
        origin="MRC, general: non-browser user agents.",
        false_positives="Apps that fetch ads with a library and its default user agent: allow them by list.",
    ),
    Rule(
        Reason.IP_DATACENTER, RuleInput.ADDRESSES,
        catches="Events from networks of hosting providers.",
        origin="TAG and MRC, general: known data-centre traffic.",
        false_positives="People behind VPNs, corporate proxies and remote desktops that are hosted: allow by list.",
    ),
    Rule(
        Reason.IP_RESERVED, RuleInput.ADDRESSES,
        catches="Addresses that no visitor can have: private, loopback, documentation, multicast.",
        origin="IANA special-purpose address registries (RFC 6890).",
        false_positives="A producer that logs its proxy's address instead of the visitor's: fix the producer.",
    ),
    Rule(
        Reason.CRAWLER_IMPOSTOR, RuleInput.ADDRESSES,
        catches="A user agent that says it is a big crawler, from an address that is not that crawler's. A Yandex bot's name counts up to 40 letters between Yandex and Bot.",
        origin="The operators' published address ranges.",
        false_positives="No visitors: nobody browses as a crawler. New ranges of a crawler, until the list has them.",
    ),
    Rule(
        Reason.PREFETCH, RuleInput.EVENT,
        catches="Events that the producer marks as prefetched: they may never have been seen.",
        origin="MRC, general: pre-fetch and pre-render traffic.",
        false_positives="A page that was prefetched and then read: the producer sends the view as an event of its own.",
    ),
    Rule(
        Reason.TEST_TRAFFIC, RuleInput.EVENT,
        catches="Events that the producer marks as tests.",
        origin="MRC, general: internal and test traffic.",
        false_positives="A test flag that was left on in production; the guardrail shows it.",
    ),
    Rule(
        Reason.INVALID_PLACEMENT, RuleInput.EVENT,
        catches="Placements that nobody can see: a stated width or height of 0 or 1 CSS pixel.",
        origin="MRC, general: hidden, stacked or 1x1 placements.",
        false_positives="Formats that grow after they load and state the size before: let the producer state the later.",
        params=(Param("side_px_max", 1, 0, 20, "a side of at most this many CSS pixels can't be seen"),),
    ),
    Rule(
        Reason.UNKNOWN_PUBLISHER, RuleInput.PUBLISHERS,
        catches="A publisher that is not in the publishers table.",
        origin="After the idea of ads.txt: only publishers that the deployment knows are paid.",
        false_positives="A publisher whose events arrive before it was entered; it is then paid by adjustment.",
    ),
    Rule(
        Reason.PUBLISHER_SUSPENDED, RuleInput.PUBLISHERS,
        catches="A publisher that is suspended.",
        origin="The deployment's own decision, in the publishers table.",
        false_positives="None: it is a decision.",
    ),
)  # fmt: skip
