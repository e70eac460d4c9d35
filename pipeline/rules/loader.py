"""Rule sets and their judge from files and packages: the thin shell around `RuleSet.parse` and `CompiledJudge`."""

import datetime as dt
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.lists.load import load_lists
from pipeline.lists.publishers import PublisherSnapshot
from pipeline.rules.compiled import CompiledJudge
from pipeline.rules.rule_set import RuleSet
from pipeline.settings import Settings

NONE = "none"
DEFAULT = "default"
MINUTE_MS = 60_000

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


def load_judge(
    settings: Settings, now: dt.date, publishers: PublisherSnapshot | None = None
) -> CompiledJudge:
    """Return the judge that the settings name, with the lists as of a day. Raises UsageError.

    None for publishers: the rules that need them are not evaluated.
    """
    rules = load_rules(settings.rules)
    if settings.rules == NONE:
        return CompiledJudge(rules)
    horizon_max = settings.rule_horizon_minutes_max
    if rules.horizon_ms > horizon_max * MINUTE_MS:
        raise UsageError(
            f"the rule set {settings.rules} looks back {rules.horizon_ms / MINUTE_MS:g} minutes, more than "
            f"rule_horizon_minutes_max ({horizon_max})",
            remedy="shorten its windows and horizons, or raise the setting (memory and the rebuild at start grow with it)",
        )
    lists = load_lists(now, directory=settings.lists_dir, age_days_max=settings.list_age_days_max)
    return CompiledJudge(rules, lists, publishers)


def today() -> dt.date:
    """Return the day (UTC) that lists' ages are judged by."""
    return dt.datetime.now(dt.UTC).date()
