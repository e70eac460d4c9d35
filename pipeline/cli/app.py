"""The command line's root: the list of commands, and how a run of any of them ends.

Exit codes: 0 success, 1 problem found, 2 usage error, 130 interrupted, 141 the reader of stdout closed it.
"""

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adledger import __version__
from adledger.pipeline.cli.output import err_error, out
from adledger.pipeline.errors import AdledgerError

COMMANDS = {
    "demo": "adledger.pipeline.cli.demo:demo",
    "check": "adledger.pipeline.cli.check:check",
    "import": "adledger.pipeline.cli.importing:import_command",
    "run": "adledger.pipeline.cli.run:run",
    "loadtest": "adledger.pipeline.cli.loadtest:loadtest",
    "chaos": "adledger.pipeline.cli.chaos:chaos",
    "query": "adledger.pipeline.cli.query:query",
    "explain": "adledger.pipeline.cli.explain:explain",
    "status": "adledger.pipeline.cli.status:status",
    "ledger": "adledger.pipeline.cli.ledger:ledger",
    "lane": "adledger.pipeline.cli.lane:lane",
    "periods": "adledger.pipeline.cli.periods:periods",
    "retention": "adledger.pipeline.cli.retention:retention",
    "dead-letters": "adledger.pipeline.cli.dead_letters:dead_letters",
    "rules": "adledger.pipeline.cli.rules:rules",
    "publishers": "adledger.pipeline.cli.publishers:publishers",
    "lists": "adledger.pipeline.cli.lists:lists",
    "clickhouse": "adledger.pipeline.cli.clickhouse:app",
    "topics": "adledger.pipeline.cli.topics:topics",
    "doctor": "adledger.pipeline.cli.doctor:doctor",
    "migrate": "adledger.pipeline.cli.migrate:migrate",
    "roles": "adledger.pipeline.cli.roles:roles",
    "config": "adledger.pipeline.cli.config:config",
    "version": "adledger.pipeline.cli.version:version",
}
"""Command -> module:attribute, in the order of `--help`. The attribute is a function, or a Typer with commands."""


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is used or listed, so that start-up stays quick.

    The signatures take Any: typer's own annotations name classes that it keeps private.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the commands' names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, importing its module at its first use; None if there is no such command."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.add_command(_load(cmd_name), cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve a command. For a misspelt one, load them all, so that the error can suggest the nearest."""
        if args and args[0] not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback for a flag
    if wanted:
        out(f"adledger {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """adledger: ad events from the log to ClickHouse, each counted exactly once.

    \b
    Examples:
      adledger demo
      adledger run --source files:data/log --clickhouse embedded:data/clickhouse --until-caught-up
      adledger query "SELECT class, count() FROM events GROUP BY class" --clickhouse embedded:data/clickhouse
      adledger ledger check

    Settings come from flags, then ADLEDGER_... in the environment, then adledger.toml: see `adledger config`.
    Exit codes: 0 success, 1 problem found, 2 usage error.
    """


def main() -> None:
    """Run the command that sys.argv names, and exit with its code."""
    try:
        app(prog_name="adledger")
    except AdledgerError as e:
        err_error(e)
        sys.exit(e.exit_code)
