"""Rule sets for tests: the named rules run with these parameters, the others are off."""

from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Reason

HEAD = 'author = "a test"\ndate = 2026-01-01\nreason = "to see"\n'


def rule_set(**rules: dict[str, int]) -> RuleSet:
    """Return a set: rule name -> parameters that differ from the defaults; rules are enforced where they may be."""
    text = HEAD
    for name, params in rules.items():
        mode = Mode.FLAG if RULES[Reason[name]].flag_only else Mode.ENFORCE
        text += f'[rules.{name}]\nmode = "{mode}"\n' + "".join(f"{k} = {v}\n" for k, v in params.items())
    return RuleSet.parse(text, "test")
