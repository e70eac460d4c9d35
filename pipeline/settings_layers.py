"""Where settings come from: flags, then the environment, then a TOML file; the first source that sets one wins.

Unknown and contradictory settings are refused before anything starts: every wrong setting is listed with its name,
its value, its origin, and the remedy. Secrets are masked wherever a value is shown: in an address the password and
everything after the host, and the value of an unknown name, since that may be a mistyped password setting.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from adledger.pipeline.addresses import EmbeddedAddress, FilesAddress, KafkaAddress, ServerAddress
from adledger.pipeline.errors import UsageError
from adledger.pipeline.settings import KAFKA_PROPERTIES, Settings

ENV_PREFIX = "ADLEDGER_"
ENV_KAFKA = f"{ENV_PREFIX}KAFKA_"
ENV_CONFIG = f"{ENV_PREFIX}CONFIG"
ENV_NOT_SETTINGS = (ENV_CONFIG, f"{ENV_PREFIX}KERNEL_CACHE")
"""Our variables that are not settings: the path of the file, and the cache of compiled kernels."""

DEFAULT_FILE = Path("adledger.toml")

RENAMED = {
    "acceptance_hours_max": "allowed_lateness_hours",
    "idle_clock_seconds": "idle_watermark_interval_seconds",
    "outage_hours_max": "retention_min_hours",
    "rules_look_seconds": "rules_poll_seconds",
}
"""Former name of a setting -> its name now."""

HIDDEN = "***"
_SECRET = re.compile(r"passw|secret|jaas|token", re.IGNORECASE)
_LOGIN = re.compile(r"(:/{0,2}[^:/?#@\s]*):.*@", re.DOTALL)
_BEHIND_HOST = re.compile(r"(://[^/?#]*)(?:/(?=.)|[?#]).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force, and the origin of each.

    `origins` has an entry for every setting, and one for each property of the kafka section, as `kafka.NAME`.
    """

    settings: Settings
    origins: Mapping[str, str]


@dataclass(slots=True)
class _Merged:
    """The values, each from the first layer that sets it, with its origin; and the refused ones."""

    values: dict[str, Any] = field(default_factory=dict)
    kafka: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def take(self, name: str, value: object, origin: str) -> None:
        """Set a value unless an earlier layer has set it; refuse an unknown name."""
        if name == "kafka":
            self._take_kafka(value, origin)
        elif name in RENAMED:
            self.refuse(name, value, origin, "this setting has a new name", f"write {RENAMED[name]}")
        elif name not in Settings.model_fields:
            self.refuse(
                name, HIDDEN, origin, "there is no such setting", nearest(name, Settings.model_fields)
            )
        elif name not in self.values:
            self.values[name], self.origins[name] = value, origin

    def _take_kafka(self, section: object, origin: str) -> None:
        if not isinstance(section, Mapping):
            self.refuse(
                "kafka", HIDDEN, origin, "not a section", "write [kafka] with the properties below it"
            )
            return
        for name, value in _flat(section):
            if name not in KAFKA_PROPERTIES:
                remedy = nearest(name, KAFKA_PROPERTIES)
                self.refuse(
                    f"kafka.{name}", HIDDEN, origin, "not a Kafka property that can be set here", remedy
                )
            elif name not in self.kafka:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                self.kafka[name], self.origins[f"kafka.{name}"] = text, origin

    def refuse(self, name: str, value: object, origin: str, why: str, remedy: str) -> None:
        """Record one wrong setting."""
        self.refused.append(f"{name} = {masked(name, value)} (from {origin}): {why}\n    remedy: {remedy}")


def load(
    flags: Mapping[str, object] | None = None, assignments: Sequence[str] = (), config: Path | None = None
) -> LoadedSettings:
    """Return the settings in force: flags, environment, file.

    `flags` are the command's own (name -> value; None: not given), `assignments` its `--set NAME=VALUE`. The file is
    `config`, the one that ADLEDGER_CONFIG names, or ./adledger.toml if it exists.
    Raises UsageError listing every wrong setting.
    """
    merged = _Merged()
    for name, value in (flags or {}).items():
        if value is not None:
            merged.take(name, value, f"flag --{name.replace('_', '-')}")
    for number, text in enumerate(assignments, 1):
        merged.take(*_assignment(number, text), "flag --set")
    _take_environment(merged)
    _take_file(merged, config)
    settings = _validated(merged)
    _raise_refused(merged)
    assert settings is not None, "what did not validate was refused"
    origins = {name: merged.origins.get(name, "default") for name in Settings.model_fields if name != "kafka"}
    return LoadedSettings(
        settings, origins | {k: v for k, v in merged.origins.items() if k.startswith("kafka.")}
    )


def masked(name: str, value: object) -> str:
    """Return a value in a form that is safe to show: `***` for a secret, `:***@` for the password in a URL."""
    if _SECRET.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {masked(str(k), v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return ",".join(str(part) for part in value)
    if isinstance(value, (FilesAddress, KafkaAddress, EmbeddedAddress, ServerAddress)):
        return _LOGIN.sub(r"\1:***@", str(value))  # a parsed address shows its query, which has no secret
    return _BEHIND_HOST.sub(rf"\1/{HIDDEN}", _LOGIN.sub(rf"\1:{HIDDEN}@", str(value)))


def _assignment(number: int, text: str) -> tuple[str, object]:
    """Return name and value of NAME=VALUE; a Kafka property is kafka.NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set, number {number}: it has no `=`", remedy="write --set NAME=VALUE")
    if name.startswith("kafka."):
        return "kafka", {name.removeprefix("kafka."): value}
    return name.strip().replace("-", "_"), value


def _take_environment(merged: _Merged) -> None:
    for name, value in EnvSettingsSource(Settings, env_parse_none_str="")().items():
        if name != "kafka":
            merged.take(name, value, f"environment {ENV_PREFIX}{name.upper()}")
    for variable, value in sorted(os.environ.items()):
        if variable.startswith(ENV_KAFKA):
            name = variable.removeprefix(ENV_KAFKA).lower().replace("_", ".")
            merged.take("kafka", {name: value}, f"environment {variable}")
        elif variable.startswith(ENV_PREFIX) and variable not in ENV_NOT_SETTINGS:
            name = variable.removeprefix(ENV_PREFIX).lower()
            if name not in Settings.model_fields or name == "kafka":
                merged.take(name, value, f"environment {variable}")


def _take_file(merged: _Merged, config: Path | None) -> None:
    named = config or os.environ.get(ENV_CONFIG)
    path = Path(named or DEFAULT_FILE)
    if not named and not path.exists():
        return
    if not path.is_file():
        raise UsageError(
            f"no settings file at {path}", remedy="name an existing file with --config or ADLEDGER_CONFIG"
        )
    try:
        found = TomlConfigSettingsSource(Settings, path)()
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"{path} is not TOML: {e}", remedy="fix that line; the form is NAME = VALUE") from e
    for name, value in found.items():
        merged.take(name, value, f"file {path}")


def _validated(merged: _Merged) -> Settings | None:
    values = merged.values | ({"kafka": merged.kafka} if merged.kafka else {})
    try:
        return Settings(**values)
    except ValidationError as e:
        for error in e.errors(include_url=False):
            _refuse_invalid(merged, error)
        return None


def _refuse_invalid(merged: _Merged, error: ErrorDetails) -> None:
    why = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # a contradiction of several settings: the message names them and the remedy
        merged.refused.append(f"{why}\n    from: {'; '.join(f'{k}: {v}' for k, v in merged.origins.items())}")
        return
    name = str(error["loc"][0])
    origin = merged.origins.get(name, "default")
    merged.refuse(name, merged.values.get(name, error["input"]), origin, why, _remedy(name))


def _remedy(name: str) -> str:
    setting = Settings.model_fields[name]
    bounds = " ".join(text for limit in setting.metadata if (text := _bound(limit)))
    default = masked(name, setting.get_default(call_default_factory=True))
    return (
        f"see `adledger config {name}`"
        + (f"; it must be {bounds}" if bounds else "")
        + f"; default: {default}"
    )


def _bound(limit: object) -> str:
    for attribute, word in (("ge", "at least"), ("le", "and at most")):
        if (bound := getattr(limit, attribute, None)) is not None:
            return f"{word} {bound}"
    return ""


def _raise_refused(merged: _Merged) -> None:
    if merged.refused:
        what = "a setting is" if len(merged.refused) == 1 else f"{len(merged.refused)} settings are"
        raise UsageError("\n  ".join([f"{what} refused:", *merged.refused]))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a remedy for an unknown name: the nearest known one."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {matches[0]}?" if matches else "leave it out; `adledger config` lists all settings"


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted names: TOML reads an unquoted `security.protocol` as a section in a section."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
