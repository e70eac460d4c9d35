"""The description of methodology, made from the rules and a rule set: what is counted, what is not, and why.

`python -m adledger.pipeline.rules.methodology` prints docs/methodology.md (`make methodology`); a test compares the page with it.
"""

from collections.abc import Iterator, Mapping

from adledger.pipeline.lists.facts import NEEDED_BY
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode, Rule
from adledger.pipeline.rules.rule_set import RuleSet, RuleSetting
from adledger.schemas.classes import Class

CLASS_WORDS: Mapping[Class, str] = {
    Class.GIVT: "general invalid traffic (GIVT)",
    Class.SIVT: "sophisticated invalid traffic (SIVT)",
}

HEAD = """\
# Methodology: how ad events are measured and filtered

Made by `make methodology` from the rules and the shipped rule set; never edited by hand. The framework is the industry's:
the MRC's invalid traffic guidelines, the IAB's lists, TAG. They give classes, not numbers, so every threshold below is
this deployment's choice, is in a versioned rule set, and is part of the evaluator version that each event is stored with.

## What is reported

| total | what is in it |
| --- | --- |
| received | every record that the log took, malformed ones included |
| gross | every event that could be decoded: received less malformed |
| duplicates | events that arrived before: same type, publisher and id within the dedupe window (24 h of log time) |
| expired | events that came more than 24 h after they happened (by default): recorded, never billed |
| GIVT | what is left and an enforced rule of general invalid traffic hit |
| SIVT | what is left and an enforced rule of sophisticated invalid traffic hit |
| net, billable | what is left |

gross = duplicates + expired + GIVT + SIVT + net, in events and in money of each currency, for each publisher and quarter
of an hour (`v_reasons`). Each event is in exactly one of them, the first that applies in this order: malformed, duplicate,
expired, GIVT, SIVT, net.

All rules are run on every event. *enforce*: a hit takes the event out of net. *flag*: a hit is recorded and changes no
total. *off*: not run. An event's primary reason is the first enforced rule that hit, in the order below; all other hits are stored too. A rule whose list is missing or too old is *not evaluated*, and counted as
that, rather than silently passing everything. Rules look at the events of one lane: all events of a user, not all of
an address or a publisher. Rates tag only what lies over a limit, never what came before it.

Publishers' statements (`v_statement`) show classes and never a rule.
"""


def methodology(rules: RuleSet, name: str) -> str:
    """Return the page for a rule set, as Markdown."""
    return "\n".join([HEAD, *_set(rules, name), *_overview(rules), *_details(rules)]) + "\n"


def _set(rules: RuleSet, name: str) -> Iterator[str]:
    yield f"## The rule set `{name}`"
    yield ""
    yield f"Of {rules.date}, by {rules.author}: {rules.reason}. Version `{rules.version:016x}`; it looks back {rules.horizon_ms // 60_000} minutes."
    yield (
        f"Guardrail: a rule that invalidates more of the money of a currency than its limit, over {rules.guardrail_window_minutes} minutes and "
        f"at least {rules.guardrail_events_min:,} events of a lane, is automatically demoted to *flag*, and an analyst decides."
    )
    yield ""


def _overview(rules: RuleSet) -> Iterator[str]:
    yield "| rule | class | mode | thresholds | most of the money | enters |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for reason, rule in RULES.items():
        setting = rules.rules[reason]
        limits = ", ".join(f"{name} = {value:,}" for name, value in setting.params.items()) or "-"
        share = (
            f"{setting.share_max_ppm / 10_000:g} %" if setting.share_max_ppm < 1_000_000 else "not bounded"
        )
        yield (
            f"| [{reason.name}](#{reason.name.lower()}) | {rule.event_class.name} | {setting.mode} | {limits} | "
            f"{share if setting.mode == Mode.ENFORCE else '-'} | {_enters(rule, setting)} |"
        )
    yield ""


def _enters(rule: Rule, setting: RuleSetting) -> str:
    if setting.mode == Mode.ENFORCE:
        return f"gross; {rule.event_class.name}; not net"
    return "gross; net, marked" if setting.mode == Mode.FLAG else "gross; net"


def _details(rules: RuleSet) -> Iterator[str]:
    for event_class, words in CLASS_WORDS.items():
        yield f"## Rules of {words}"
        yield ""
        for reason, rule in RULES.items():
            if rule.event_class == event_class:
                yield from _rule(rule, rules.rules[reason])


def _rule(rule: Rule, setting: RuleSetting) -> Iterator[str]:
    yield f"### {rule.reason.name}"
    yield ""
    yield rule.catches
    yield ""
    for param in rule.params:
        yield f"- `{param.name} = {setting.params[param.name]}`: {param.meaning}"
    mode = f"{setting.mode}, and never more than a flag" if rule.flag_only else str(setting.mode)
    yield f"- Mode: {mode}. Evaluated from {rule.source.value}."
    if lists := NEEDED_BY.get(rule.reason.name):
        yield f"- Lists: {', '.join(lists)} ([which they are](lists.md)); without them it is not evaluated."
    yield f"- Source: {rule.origin}"
    yield f"- False positives to expect: {rule.false_positives}"
    yield ""


if __name__ == "__main__":
    print(methodology(load_rules(DEFAULT), DEFAULT).rstrip())  # noqa: T201
