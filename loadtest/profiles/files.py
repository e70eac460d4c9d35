"""Profiles: named files that hold load and thresholds. Errors name file, key and remedy."""

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from adledger.loadtest.profiles.profile import (
    CONSTANT,
    DURATION_SECONDS_MAX,
    EXECUTORS,
    FAULTS,
    RAMPING,
    RATE_MAX,
    Fault,
    Load,
    Profile,
    Stage,
    seconds_of,
)
from adledger.loadtest.profiles.thresholds import Threshold, parse_threshold
from adledger.loadtest.results.names import METRICS
from adledger.loadtest.traffic.model import Burst, Scenario, TrafficModel
from adledger.loadtest.traffic.scenarios import SCENARIOS
from adledger.pipeline.errors import UsageError
from adledger.pipeline.settings import Settings

_OURS = {"seed", "events", "partitions", "start_ms", "duration_hours", "ramps", "edge_margin_minutes",
         "dedupe_window_hours", "allowed_lateness_hours"}  # fmt: skip
"""Knobs of the traffic that follow from the load, the settings and the command."""
_RUNS_OWN = {"source", "clickhouse", "database", "topics", "rollups_topic", "group", "log_time",
             "web_host", "web_port", "cluster"}  # fmt: skip
"""Settings that each run sets."""


def names() -> list[str]:
    """Return the names of the profiles that adledger ships."""
    folder = resources.files("adledger.loadtest") / "profiles"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load(name: str) -> Profile:
    """Return a profile by its name, or from a file (a path that ends in .toml). Raises UsageError."""
    if name.endswith(".toml"):
        try:
            return parse(Path(name).read_text("utf-8"), name, Path(name).stem)
        except OSError as error:
            raise UsageError(
                f"{name}: {error.strerror}", remedy="name a profile, or a file that can be read"
            ) from None
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        raise UsageError(
            f"there is no profile {name!r}",
            remedy=(f"did you mean {near[0]}? " if near else "")
            + f"Known are {', '.join(names())}, or a .toml file",
        )
    text = (resources.files("adledger.loadtest") / "profiles" / f"{name}.toml").read_text("utf-8")
    return parse(text, f"profile {name}", name)


def parse(text: str, where: str, name: str) -> Profile:
    """Return the profile of a TOML text. Raises UsageError, naming `where`, the key and the remedy."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}", remedy="fix the line it names") from None
    return _Reader(where).profile(document, name)


class _Reader:
    """Reads a profile's tables, key by key, and names what is wrong."""

    def __init__(self, where: str) -> None:
        self._where = where

    def profile(self, document: Mapping[str, Any], name: str) -> Profile:
        self._known("", document, ("description", "load", "traffic", "thresholds", "settings", "faults"))
        traffic = dict(self._table(document, "traffic"))
        replay_hours = self._number("traffic.replay_hours", traffic.pop("replay_hours", 26.0), 0.1, 24 * 14)
        return Profile(
            name=name,
            description=self._text("description", document.get("description", "")),
            load=self._load(self._table(document, "load")),
            traffic=self._traffic(traffic),
            thresholds=self._thresholds(self._table(document, "thresholds")),
            settings=self._settings(self._table(document, "settings")),
            faults=tuple(
                self._fault(i, f) for i, f in enumerate(self._list("faults", document.get("faults", [])))
            ),
            replay_hours=replay_hours,
        )

    def _load(self, table: Mapping[str, Any]) -> Load:
        keys = ("executor", "rate", "duration", "warm_up", "stages", "start_rate", "drain", "partitions")
        self._known("load", table, keys)
        executor = table.get("executor", CONSTANT)
        if executor not in EXECUTORS:
            self._wrong("load.executor", f"{executor!r} is no executor", f"one of {', '.join(EXECUTORS)}")
        stages = tuple(
            self._stage(i, s) for i, s in enumerate(self._list("load.stages", table.get("stages", [])))
        )
        if bool(stages) != (executor == RAMPING):
            self._wrong(
                "load.stages",
                f"{len(stages)} stages for {executor}",
                f"stages belong to {RAMPING}, which needs one",
            )
        seconds = sum(stage.seconds for stage in stages) or self._duration(
            "load.duration", table.get("duration", "30s")
        )
        if not 1 <= seconds <= DURATION_SECONDS_MAX:
            self._wrong("load.duration", f"{seconds} s is out of bounds", f"1 to {DURATION_SECONDS_MAX} s")
        return Load(
            executor=executor,
            rate=self._number("load.rate", table.get("rate", 20_000), 1, RATE_MAX),
            seconds=seconds,
            warm_up_seconds=self._duration("load.warm_up", table.get("warm_up", "5s")),
            stages=stages,
            start_rate=self._number("load.start_rate", table.get("start_rate", 0), 0, RATE_MAX),
            drain_seconds=self._duration("load.drain", table.get("drain", "60s")),
            partitions=int(self._number("load.partitions", table.get("partitions", 8), 1, 1024)),
        )

    def _stage(self, number: int, table: Any) -> Stage:
        key = f"load.stages[{number}]"
        self._known(key, table, ("target", "duration"))
        target = self._number(f"{key}.target", table.get("target"), 0, RATE_MAX)
        return Stage(target, self._duration(f"{key}.duration", table.get("duration")))

    def _fault(self, number: int, table: Any) -> Fault:
        key = f"faults[{number}]"
        self._known(key, table, ("kind", "at", "duration"))
        if table.get("kind") not in FAULTS:
            self._wrong(
                f"{key}.kind", f"there is no fault {table.get('kind')!r}", f"one of {', '.join(FAULTS)}"
            )
        at = self._duration(f"{key}.at", table.get("at"))
        return Fault(table["kind"], at, self._duration(f"{key}.duration", table.get("duration", "0s")))

    def _traffic(self, table: dict[str, Any]) -> dict[str, Any]:
        fields = {f.name: f.type for f in dataclasses.fields(TrafficModel) if f.name not in _OURS}
        self._known("traffic", table, fields)
        for name, of in (("scenarios", Scenario), ("bursts", Burst)):
            entries = self._list(f"traffic.{name}", table.get(name, []))
            table[name] = tuple(
                self._made(f"traffic.{name}[{i}]", of, entry) for i, entry in enumerate(entries)
            )
        for scenario in table["scenarios"]:
            if scenario.kind not in SCENARIOS:
                self._wrong(
                    "traffic.scenarios", f"there is no {scenario.kind!r}", f"one of {', '.join(SCENARIOS)}"
                )
        self._typed("traffic", TrafficModel, table)
        try:
            TrafficModel(**table)
        except UsageError as error:
            self._wrong("traffic", error.message, error.remedy)
        return table

    def _made(self, key: str, of: Callable[..., Any], table: Any) -> Any:
        self._known(key, table, [f.name for f in dataclasses.fields(of)])  # type: ignore[arg-type]
        self._typed(key, of, table)
        try:
            return of(**table)
        except TypeError as error:
            return self._wrong(key, str(error), "give every key that has no default")

    def _typed(self, key: str, of: Any, table: Mapping[str, Any]) -> None:
        """Check numbers and texts against the annotations; a whole number is a float too."""
        for name, value in table.items():
            kind = get_type_hints(of)[name]
            fits = (
                isinstance(value, (int, float) if kind is float else kind)
                if kind in {int, float, str}
                else True
            )
            if not fits or isinstance(value, bool):
                self._wrong(
                    f"{key}.{name}",
                    f"{value!r} is no {kind.__name__}",
                    f"give a value of type {kind.__name__}",
                )

    def _thresholds(self, table: Mapping[str, Any]) -> tuple[Threshold, ...]:
        metrics = dict.fromkeys(name.partition(".")[0] for name in METRICS)
        self._known("thresholds", table, metrics)
        found = []
        for metric, entries in table.items():
            for entry in (
                [entries] if isinstance(entries, str | dict) else self._list(f"thresholds.{metric}", entries)
            ):
                given = {"threshold": entry} if isinstance(entry, str) else entry
                self._known(f"thresholds.{metric}", given, ("threshold", "abort_on_fail", "delay_abort_eval"))
                try:
                    found.append(parse_threshold(
                        metric, given.get("threshold"), abort_on_fail=bool(given.get("abort_on_fail", False)),
                        delay_seconds=seconds_of(given.get("delay_abort_eval", "0s")),
                    ))  # fmt: skip
                except ValueError as error:
                    self._wrong(
                        f"thresholds.{metric}",
                        str(error),
                        'as in k6: ["p(99)<5000"] or [{threshold = "max<9", abort_on_fail = true}]',
                    )
        return tuple(found)

    def _settings(self, table: Mapping[str, Any]) -> Mapping[str, Any]:
        self._known("settings", table, [name for name in Settings.model_fields if name not in _RUNS_OWN])
        return table

    def _table(self, document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        value = document.get(name, {})
        if not isinstance(value, dict):
            self._wrong(name, "is no table", f"begin it with [{name}]")
        return value

    def _list(self, key: str, value: Any) -> Sequence[Any]:
        if not isinstance(value, list):
            self._wrong(key, f"{value!r} is no list", "write it in square brackets")
        return value

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            self._wrong(key, f"{value!r} is no text", "put it in quotes")
        return value

    def _number(self, key: str, value: Any, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self._wrong(key, f"{value!r} is out of bounds", f"a number from {least:g} to {most:,g}")
        return value

    def _duration(self, key: str, value: Any) -> float:
        try:
            return seconds_of(value)
        except ValueError as error:
            self._wrong(key, str(error), "a text of number and unit, in quotes")

    def _known(self, key: str, table: Any, known: Any) -> None:
        if not isinstance(table, dict):
            self._wrong(key, f"{table!r} is no table", "write it as { key = value }")
        for name in table:
            if name not in known:
                near = difflib.get_close_matches(name, list(known), 1)
                remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                self._wrong(f"{key}.{name}".lstrip("."), "is no key of a profile", remedy)

    def _wrong(self, key: str, what: str, remedy: str) -> NoReturn:
        raise UsageError(f"{self._where}: {key}: {what}", remedy=remedy)
