"""Rule sets from files: the thin shell around `RuleSet.parse`."""

from pathlib import Path

from pipeline.errors import UsageError
from pipeline.rules.rule_set import RuleSet

NONE = "none"
DEFAULT = "default"

_SHIPPED = Path(__file__).resolve().parents[2] / "schemas" / "rules"


def load_rules(name: str) -> RuleSet:
    """Return the rule set of a file, `default` (the one that adledger comes with) or `none`. Raises UsageError."""
    if name == NONE:
        return RuleSet.none()
    path = _SHIPPED / "default.toml" if name == DEFAULT else Path(name)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the rule set {name} can't be read: {error}", remedy="give a TOML file, default or none"
        ) from None
    return RuleSet.parse(text, name)
