"""Options that several commands share, and how they become settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from adledger.pipeline.settings_layers import LoadedSettings

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
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


def load_settings(
    config: Path | None, assignments: list[str] | None, **flags: str | int | None
) -> "LoadedSettings":
    """Return the settings in force with a command's flags before environment and file. Raises UsageError."""
    from adledger.pipeline.settings_layers import load  # start-up: pydantic takes 0.2 s

    return load(flags, assignments or (), config)
