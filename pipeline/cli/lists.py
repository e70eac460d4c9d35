"""`adledger lists`: the lists that fraud rules use, and the check of a deployment's own lists."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, err_error, out, out_json, out_table

if TYPE_CHECKING:
    from adledger.pipeline.lists.facts import ListFacts
    from adledger.pipeline.lists.load import Lists

lists = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of", formats=["%Y-%m-%d"], metavar="DAY", help="Compute ages as of this day (default: today)."
    ),
]


@lists.callback()
def root() -> None:
    """Show and check the lists of user agents and addresses.

    \b
    Examples:
      adledger lists status
      adledger lists lint lists/*.toml
    """


@lists.command("status")
@options.deployment()
def status(
    given: options.Deployment,
    *,
    as_of: AsOf = None,
    as_json: options.Json = False,
) -> None:
    """Print each list's version, entries, date, age, limit and state.

    Rules whose list is missing or too old are not evaluated: exit code 1. Upgrade a package to renew its lists; a
    deployment's own lists are in lists_dir.

    \b
    Examples:
      adledger lists status
      adledger lists status --set lists_dir=lists --json
      adledger lists status --as-of 2027-06-01
    """
    from adledger.pipeline.lists.facts import ListState
    from adledger.pipeline.lists.load import load_lists

    settings = given.settings
    loaded = load_lists(_day(as_of), directory=settings.lists_dir, age_days_max=settings.list_age_days_max)
    _print_json(loaded) if as_json else _print_text(loaded)
    if any(facts.state(loaded.now) in (ListState.MISSING, ListState.TOO_OLD) for facts in loaded.facts):
        raise typer.Exit(1)


def _day(as_of: datetime | None) -> date:
    return datetime.now(UTC).date() if as_of is None else as_of.date()


def _print_text(loaded: "Lists") -> None:
    header = ("list", "state", "entries", "date", "age, days", "limit", "version", "from")
    out_table(header, [_row(facts, loaded.now) for facts in loaded.facts])
    out(f"lists version {loaded.version}")
    for facts in loaded.facts:
        if why := facts.why_not(loaded.now):
            err(f"not usable: {why}\n  remedy: {_remedy(facts)}")


def _row(facts: "ListFacts", now: date) -> tuple[object, ...]:
    limit, age = facts.age_days_max, facts.age_days(now)
    made = "-" if facts.made is None else facts.made.isoformat()
    return (
        facts.name, facts.state(now).value, facts.entries, made, age, limit, facts.version or "-", facts.source
    )  # fmt: skip


def _remedy(facts: "ListFacts") -> str:
    from adledger.pipeline.lists.facts import PACKAGED

    if facts.name in PACKAGED:
        return f"upgrade its source ({facts.source}); list_age_days_max limits its age"
    return "renew the file and its date, or delete it"


def _print_json(loaded: "Lists") -> None:
    out_json(
        {
            "lists_version": loaded.version,
            "as_of": loaded.now.isoformat(),
            "lists": [_as_json(facts, loaded.now) for facts in loaded.facts],
        }
    )


def _as_json(facts: "ListFacts", now: date) -> dict[str, Any]:
    return {
        "name": facts.name,
        "state": facts.state(now).value,
        "why_not": facts.why_not(now),
        "version": facts.version,
        "content": facts.content,
        "entries": facts.entries,
        "left_out": facts.left_out,
        "date": None if facts.made is None else facts.made.isoformat(),
        "age_days": facts.age_days(now),
        "age_days_max": facts.age_days_max,
        "source": facts.source,
        "licence": facts.licence,
    }


@lists.command("lint")
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Allow or deny lists (TOML).")],
    *,
    as_of: AsOf = None,
    as_json: options.Json = False,
) -> None:
    """Check allow and deny lists before you put them into lists_dir.

    Errors name the file, the line and the remedy. Exit codes: 0 all are valid, 1 at least one is not.

    \b
    Examples:
      adledger lists lint lists/office.toml
      adledger lists lint lists/*.toml --json
    """
    from adledger.pipeline.errors import AdledgerError

    now = _day(as_of)
    checked: list[dict[str, Any]] = []
    names: dict[str, Path] = {}
    for path in files:
        try:
            found = _checked(path, now, names)
            checked.append({"file": str(path), "name": found.name, "entries": found.entries})
            if not as_json:
                out(f"{path}: {found.name} {found.version}, {found.entries:,} entries")
        except AdledgerError as e:
            checked.append({"file": str(path), "wrong": e.message, "remedy": e.remedy})
            err_error(e)
    wrong = any("wrong" in each for each in checked)
    if as_json:
        out_json({"files": checked, "fine": not wrong})
    if wrong:
        raise typer.Exit(1)


def _checked(path: Path, now: date, names: dict[str, Path]) -> "ListFacts":
    from adledger.pipeline.errors import UsageError
    from adledger.pipeline.lists.deployment import load_file

    facts = load_file(path, now).facts
    other = names.setdefault(facts.name, path)
    if other != path:
        raise UsageError(
            f"{path}: the name {facts.name!r} is taken by {other}", remedy="give each list its own name"
        )
    return facts
