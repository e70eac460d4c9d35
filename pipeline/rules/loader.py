"""Rule sets and their evaluator from files and packages: the thin shell around `RuleSet.parse` and `RuleEvaluator`."""

import datetime as dt
from pathlib import Path

from adledger.pipeline.errors import UsageError
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.lists.publishers import PublisherSnapshot
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.settings import Settings

NONE = "none"
DEFAULT = "default"
PUBLISHED = "published"
MINUTE_MS = 60_000

_SHIPPED = Path(__file__).resolve().parents[2] / "schemas" / "rules"


def load_rules(name: str) -> RuleSet:
    """Return the rule set of a file, `default` (the shipped one) or `none`. Raises UsageError.

    `published` is refused: that set is in ClickHouse.
    """
    if name == NONE:
        return RuleSet.none()
    text = read_rules(_SHIPPED / "default.toml" if name == DEFAULT else Path(name))
    return RuleSet.parse(text, name)


def read_rules(path: Path) -> str:
    """Return a rule set's text. Raises UsageError where it can't be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the rule set {path} can't be read: {error}", remedy="give a TOML file, default or none"
        ) from None


def load_checked(path: Path, horizon_max: int) -> tuple[RuleSet, str]:
    """Return a file's rule set and text, checked whole, its horizon (minutes) too. Raises UsageError."""
    text = read_rules(path)
    found = RuleSet.parse(text, str(path))
    require_horizon(found, str(path), horizon_max)
    return found, text


def load_evaluator(
    settings: Settings,
    now: dt.date,
    publishers: PublisherSnapshot | None = None,
    published: RuleSet | None = None,
) -> RuleEvaluator:
    """Return the evaluator that the settings name, with the lists as of a day. Raises UsageError.

    None for publishers: the rules that need them are not evaluated. `published`: the set of the table `rules` where the
    setting is `published`; None: no set has been published, and the shipped one is in force.
    """
    rules = published or load_rules(shipped_name(settings.rules))
    if settings.rules == NONE:
        return RuleEvaluator(rules)
    require_horizon(rules, settings.rules, settings.rule_horizon_minutes_max)
    lists = load_lists(now, directory=settings.lists_dir, age_days_max=settings.list_age_days_max)
    return RuleEvaluator(rules, lists, publishers)


def shipped_name(name: str) -> str:
    """Return the name of the set that a setting `rules` means until one is published."""
    return DEFAULT if name == PUBLISHED else name


def require_horizon(rules: RuleSet, name: str, horizon_max: int) -> None:
    """Raise UsageError where a set looks back more minutes than the deployment allows."""
    if rules.horizon_ms > horizon_max * MINUTE_MS:
        raise UsageError(
            f"the rule set {name} looks back {rules.horizon_ms / MINUTE_MS:g} minutes, more than "
            f"rule_horizon_minutes_max ({horizon_max})",
            remedy="shorten its windows and horizons, or raise the setting (memory and the rebuild at start grow with it)",
        )


def today() -> dt.date:
    """Return the day (UTC) that lists' ages are measured against."""
    return dt.datetime.now(dt.UTC).date()
