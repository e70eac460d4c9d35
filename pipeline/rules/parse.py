"""Parsing a rule set's TOML: unless all of it is valid, it is refused whole, with the line and the remedy."""

import datetime as dt
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Any, NoReturn

from adledger.pipeline.errors import UsageError
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode, Param, Rule
from adledger.schemas.classes import Reason

PPM_PER_PERCENT = 10_000
TEXT_CHARACTERS_MAX = 2_000

GUARDRAIL_PARAMS = (
    Param("window_minutes", 60, 1, 1440, "minutes of log time over which shares are measured"),
    Param(
        "events_min", 10_000, 1, 10**12, "with fewer events of a currency in the window, nothing is decided"
    ),
)
SHARES = ("share_min_percent", "share_max_percent")


@dataclass(frozen=True, slots=True)
class Head:
    """Who made the set, when and why."""

    author: str
    date: dt.date
    reason: str


@dataclass(frozen=True, slots=True)
class Values:
    """What the text says of one rule."""

    mode: str
    params: Mapping[str, int]
    share_min_ppm: int
    share_max_ppm: int


@dataclass(frozen=True, slots=True)
class _Text:
    """The text, to tell lines of it."""

    name: str
    lines: tuple[str, ...]

    def refuse(self, message: str, remedy: str, *, table: str = "", key: str = "") -> NoReturn:
        """Raise UsageError with the line of a key in a table (or of the table, or the first line)."""
        raise UsageError(f"{self.name}, line {self._line(table, key)}: {message}", remedy=remedy)

    def _line(self, table: str, key: str) -> int:
        within, found = "", 1
        for number, line in enumerate(self.lines, 1):
            if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
                within = re.sub(r"[\s\"']", "", header[1])
                if within == table:
                    found = number
            elif within == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line) and key:
                return number
        return found


def parsed(text: str, name: str) -> tuple[Head, Mapping[str, int], Mapping[Reason, Values]]:
    """Return what a rule set's text says, every value checked. Raises UsageError."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, DecimalException) as error:
        line = re.search(r"line (\d+)", str(error))
        place = f"{name}, line {line[1]}" if line else name
        raise UsageError(f"{place}: not TOML: {error}", remedy="fix that line") from None
    where = _Text(name, tuple(text.splitlines()))
    _known(where, document, ("author", "date", "reason", "guardrail", "rules"), "")
    guardrail, rules = _table(where, document, "guardrail"), _table(where, document, "rules")
    _known(where, guardrail, [p.name for p in GUARDRAIL_PARAMS], "guardrail")
    limits = {
        p.name: _whole(where, p, guardrail, "guardrail") for p in GUARDRAIL_PARAMS if p.name in guardrail
    }
    _known(where, rules, [r.name for r in RULES], "rules")
    return _head(where, document), limits, {Reason[n]: _values(where, rules, Reason[n]) for n in rules}


def _head(where: _Text, document: Mapping[str, Any]) -> Head:
    for key in ("author", "date", "reason"):
        if key not in document:
            where.refuse(f"{key} is missing", f"say who, when and why: {key} = ...")
    for key in ("author", "reason"):
        value = document[key]
        if not isinstance(value, str) or not value.strip() or len(value) > TEXT_CHARACTERS_MAX:
            where.refuse(
                f"{key} is no text", f"give a text of 1 to {TEXT_CHARACTERS_MAX} characters", key=key
            )
    date = document["date"]
    if isinstance(date, dt.datetime) or not isinstance(date, dt.date):
        where.refuse("date is no date", "write it as date = 2026-01-31", key="date")
    return Head(document["author"], date, document["reason"])


def _values(where: _Text, rules: Mapping[str, Any], reason: Reason) -> Values:
    rule, table = RULES[reason], f"rules.{reason.name}"
    values = _table(where, rules, reason.name, table)
    _known(where, values, ["mode", *SHARES, *(p.name for p in rule.params)], table)
    mode = _mode(where, rule, values, table)
    params = {p.name: _whole(where, p, values, table) for p in rule.params if p.name in values}
    least, most = (_share(where, values, key, table) for key in SHARES)
    least = 0 if least is None else least
    most = 100 * PPM_PER_PERCENT if most is None else most
    if least > most:
        where.refuse(
            "share_min_percent is above share_max_percent", "swap them", table=table, key="share_min_percent"
        )
    return Values(mode, params, least, most)


def _mode(where: _Text, rule: Rule, values: Mapping[str, Any], table: str) -> str:
    modes = [m.value for m in Mode if not (rule.flag_only and m == Mode.ENFORCE)]
    mode = values.get("mode")
    if mode is None:
        where.refuse("mode is missing", f"give mode = one of {', '.join(modes)}", table=table)
    if mode not in modes:
        why = " (its hits are hints: they never change a class here)" if rule.flag_only else ""
        where.refuse(
            f"mode = {mode!r} is not a mode of {rule.reason.name}{why}", f"give one of {', '.join(modes)}",
            table=table, key="mode",
        )  # fmt: skip
    return str(mode)


def _whole(where: _Text, param: Param, values: Mapping[str, Any], table: str) -> int:
    value = values[param.name]
    if isinstance(value, bool) or not isinstance(value, int) or not param.least <= value <= param.most:
        where.refuse(
            f"{param.name} = {value} is out of bounds", f"give a whole number from {param.least} to {param.most}",
            table=table, key=param.name,
        )  # fmt: skip
    return value


def _share(where: _Text, values: Mapping[str, Any], key: str, table: str) -> int | None:
    if key not in values:
        return None
    value = values[key]
    number = Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None
    if number is None or not number.is_finite() or not 0 <= number <= 100:
        where.refuse(
            f"{key} = {value} is not a share", "give a percentage from 0 to 100", table=table, key=key
        )
    ppm = number * PPM_PER_PERCENT
    if ppm != int(ppm):
        where.refuse(
            f"{key} = {value} is too fine", "give at most 4 digits after the point", table=table, key=key
        )
    return int(ppm)


def _table(where: _Text, parent: Mapping[str, Any], key: str, table: str = "") -> Mapping[str, Any]:
    value = parent.get(key, {})
    if not isinstance(value, dict):
        where.refuse(f"{key} is no table", f"write it as [{table or key}] with its keys below", key=key)
    return value


def _known(where: _Text, values: Mapping[str, Any], known: Any, table: str) -> None:
    for key in values:
        if key not in known:
            where.refuse(
                f"there is no {key!r} {'in ' + table if table else 'at the top'}",
                f"known are {', '.join(known)}", table=_place(table, key, values[key]), key=key,
            )  # fmt: skip


def _place(table: str, key: str, value: Any) -> str:
    """Return the table whose header or key names an unknown thing."""
    return ".".join(filter(None, (table, key))) if isinstance(value, dict) else table
