"""Options that several commands share, declared once, and the deployment that they name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adledger.pipeline.settings import Settings
    from adledger.pipeline.settings_layers import LoadedSettings

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded permanently.")]
Author = Annotated[
    str | None, typer.Option("--author", metavar="NAME", help="Who (default: the login name).")
]

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file (default: ./adledger.toml).")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any setting; `adledger config` lists them. Repeatable."
    ),
]
Source = Annotated[
    str | None,
    typer.Option("--source", metavar="ADDRESS", help="The log: files:DIR or kafka://HOST:PORT[,...]."),
]
ClickHouse = Annotated[
    str | None,
    typer.Option(
        "--clickhouse",
        metavar="ADDRESS",
        help="clickhouse://USER:PASSWORD@HOST:PORT/?secure=1 or embedded:DIR.",
    ),
]
Database = Annotated[str | None, typer.Option("--database", metavar="NAME", help="Database of all tables.")]
Group = Annotated[str | None, typer.Option("--group", metavar="NAME", help="Consumer group.")]

SETTINGS: Mapping[str, Any] = {
    "source": Source, "clickhouse": ClickHouse, "database": Database, "group": Group,
}  # fmt: skip
"""Settings that have their own option; --set sets the others."""

_EVERYWHERE: Mapping[str, Any] = {"config_file": Config, "assignments": Set}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a command line says about the deployment: settings file, --set, and the settings' own options."""

    config_file: Path | None
    assignments: tuple[str, ...]
    flags: Mapping[str, str | int | None]

    def load(self, *assignments: str, **flags: str | int | None) -> "LoadedSettings":
        """Return the settings in force: flags, then environment, then file. Raises UsageError.

        `assignments` and `flags` are added to those of the command line.
        """
        from adledger.pipeline.settings_layers import load  # start-up: pydantic takes 0.2 s

        return load({**self.flags, **flags}, (*self.assignments, *assignments), self.config_file)

    @property
    def settings(self) -> "Settings":
        """The settings in force. Raises UsageError."""
        return self.load().settings


def deployment(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add --config, --set and the options of these settings to a command; its function takes a Deployment first.

    The help lists them after the command's own options, before --json.
    """
    shared = {name: SETTINGS[name] for name in names} | dict(_EVERYWHERE)
    declared = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in shared.items()]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = signature(command).parameters.values()
        last = [p for p in own if p.name == "as_json"]
        parameters = [*(p for p in own if p.name != "as_json"), *declared, *last]

        @wraps(command)
        def with_deployment(*args: Any, **given: Any) -> None:
            config_file, assignments = given.pop("config_file", None), given.pop("assignments", None)
            flags = {name: given.pop(name, None) for name in names}
            command(Deployment(config_file, tuple(assignments or ()), flags), *args, **given)

        with_deployment.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        with_deployment.__annotations__ = {p.name: p.annotation for p in parameters}
        del with_deployment.__wrapped__  # typer would read the function's own signature
        return with_deployment

    return decorate
