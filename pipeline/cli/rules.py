"""`adledger rules`: versioned rule sets, what they decide, and what guardrails did."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, err_error, out, out_bytes, out_json, out_table
from adledger.pipeline.cli.rules_output import alert_json, alert_line, published_json, time_text
from adledger.pipeline.cli.what_if import what_if

if TYPE_CHECKING:
    from adledger.pipeline.rules.rule_set import RuleSet
    from adledger.pipeline.settings import Settings

rules = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
rules.command("what-if")(what_if)

SET_HELP = "A file, default, none, published (the newest published set), or a version."
NameArgument = Annotated[str, typer.Argument(metavar="SET", help=SET_HELP)]


@rules.callback()
def root() -> None:
    """Check, compare, try out and publish fraud rules.

    Also resume rules that a guardrail has demoted to flag.

    \b
    Examples:
      adledger rules lint new.toml
      adledger rules diff published new.toml
      adledger rules what-if --rules new.toml --from 2026-11-20 --to 2026-11-21
      adledger rules publish new.toml --author mia --reason "double clicks within 3 s, ticket 71"
      adledger rules status
    """


@rules.command("lint")
@options.deployment()
def lint(
    given: options.Deployment,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Rule sets (TOML).")],
    *,
    as_json: options.Json = False,
) -> None:
    """Check rule sets, including rule_horizon_minutes_max. Exits with 1 if one is invalid.

    \b
    Examples:
      adledger rules lint new.toml
      adledger rules lint rules/*.toml --json
    """
    from adledger.pipeline.errors import UsageError

    settings = given.settings
    checked: list[dict[str, Any]] = []
    for path in files:
        try:
            found, _ = _checked(path, settings)
            checked.append({"file": str(path), "version": f"{found.version:016x}"})
            if not as_json:
                out(
                    f"{path}: valid, version {found.version:016x}, looks back {found.horizon_ms // 60_000} min"
                )
        except UsageError as error:
            checked.append({"file": str(path), "wrong": error.message, "remedy": error.remedy})
            err_error(error)
    wrong = any("wrong" in each for each in checked)
    if as_json:
        out_json({"files": checked, "fine": not wrong})
    if wrong:
        raise typer.Exit(1)


@rules.command("diff")
@options.deployment("clickhouse", "database")
def diff(
    given: options.Deployment,
    before: Annotated[str, typer.Argument(metavar="OLD", help=SET_HELP)],
    after: Annotated[str, typer.Argument(metavar="NEW", help="The same.")],
    *,
    as_json: options.Json = False,
) -> None:
    """Show how two sets differ, rule by rule: modes, thresholds, horizons, bounds.

    \b
    Examples:
      adledger rules diff default new.toml
      adledger rules diff published new.toml --json
    """
    from adledger.pipeline.cli.rules_tables import read_named
    from adledger.pipeline.rules.diff import differences

    settings = given.settings
    old, _ = read_named(settings, before)
    new, _ = read_named(settings, after)
    found = differences(old, new)
    if as_json:
        out_json(
            {
                "before": f"{old.version:016x}", "after": f"{new.version:016x}",
                "differences": [
                    {"rule": d.rule, "what": d.what, "before": d.before, "after": d.after, "rebuilds_windows": d.rebuilds}
                    for d in found
                ],
            }
        )  # fmt: skip
    elif not found:
        out("both sets decide the same")
    else:
        out_table(("rule", "what", "before", "after"), [(d.rule, d.what, d.before, d.after) for d in found])
        if any(d.rebuilds for d in found):
            err("horizons change: each lane rebuilds its windows from `events` at a batch boundary")


@rules.command("publish")
@options.deployment("clickhouse", "database")
def publish(
    given: options.Deployment,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rule set (TOML).")],
    *,
    reason: options.Reason,
    author: options.Author = None,
    as_json: options.Json = False,
) -> None:
    """Publish a rule set: workers with rules = published use it from each lane's next batch on.

    It is checked first: an invalid set is refused, and nothing changes.

    \b
    Examples:
      adledger rules publish new.toml --author mia --reason "double clicks within 3 s, ticket 71"
    """
    from adledger.pipeline.cli.rules_tables import RulesTables

    settings = given.settings
    checked, text = _checked(file, settings)
    with connect.client(settings) as client:
        row = RulesTables(client, settings.database).publish(
            checked, text, author or getpass.getuser(), reason
        )
    line = f"published: version {row.version:016x} at {time_text(row.published_at)}"
    out_json(published_json(row)) if as_json else out(line)
    if settings.rules != "published":
        err(
            f"these settings have rules = {settings.rules}: only workers with rules = published use the new set"
        )


@rules.command("history")
@options.deployment("clickhouse", "database")
def history(
    given: options.Deployment,
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="The most sets to list.")] = 50,
    as_json: options.Json = False,
) -> None:
    """List the published sets, the newest first: version, when, who, why.

    \b
    Examples:
      adledger rules history --json
    """
    from adledger.pipeline.cli.rules_tables import RulesTables

    settings = given.settings
    with connect.client(settings) as client:
        found = RulesTables(client, settings.database).history(limit)
    if as_json:
        out_json({"published": [published_json(row) for row in found]})
        return
    if not found:
        err("no rules have been published yet: the shipped set is in force (adledger rules show default)")
        return
    rows = [(f"{r.version:016x}", time_text(r.published_at), r.author, r.reason) for r in found]
    out_table(("version", "published", "author", "reason"), rows)


@rules.command("show")
@options.deployment("clickhouse", "database")
def show(
    given: options.Deployment,
    name: NameArgument,
) -> None:
    """Print a rule set's TOML, as it was published.

    \b
    Examples:
      adledger rules show default > new.toml
      adledger rules show published
    """
    from adledger.pipeline.cli.rules_tables import read_named

    _, text = read_named(given.settings, name)
    out_bytes(text.encode())


@rules.command("status")
@options.deployment("clickhouse", "database")
def status(
    given: options.Deployment,
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="The most alerts to show.")] = 20,
    as_json: options.Json = False,
) -> None:
    """Show the set in force, the rules that guardrails have demoted to flag, and the last alerts.

    Exits with 1 if a demoted rule waits for a decision.

    \b
    Examples:
      adledger rules status
      adledger rules resume IP_DATACENTER --reason "a new campaign on hosted desktops, checked"
    """
    from adledger.pipeline.cli.rules_tables import RulesTables

    settings = given.settings
    with connect.client(settings) as client:
        tables = RulesTables(client, settings.database)
        in_force = tables.in_force()
        demoted, alerts = tables.demoted(in_force), tables.alerts(limit)
    lanes_of = {
        rule: sorted(lane for lanes in where.values() for lane in lanes) for rule, where in demoted.items()
    }
    versions = [f"{version:016x}" for version in sorted(set(in_force.values()))]
    if as_json:
        out_json({"rules_versions": versions, "demoted": lanes_of, "alerts": [alert_json(a) for a in alerts]})
    else:
        out(
            f"rule set in force: {', '.join(versions)}"
            if versions
            else "no rule set has evaluated a batch yet"
        )
        out_table(("raised", "kind", "rule", "lane", "batch", "what"), [alert_line(a) for a in alerts])
        for rule, lanes in lanes_of.items():
            err(
                f"{rule} is demoted to flag in lanes {', '.join(map(str, lanes))}: check it, then publish another set, or run"
            )
            err(f"  adledger rules resume {rule} --reason TEXT")
    if demoted:
        raise typer.Exit(1)


@rules.command("resume")
@options.deployment("clickhouse", "database")
def resume(
    given: options.Deployment,
    rule: Annotated[
        str, typer.Argument(metavar="RULE", help="The rule that a guardrail has demoted to flag.")
    ],
    *,
    reason: options.Reason,
    author: options.Author = None,
    as_json: options.Json = False,
) -> None:
    """Let a rule that guardrails have demoted to flag enforce again.

    All lanes enforce it from their next batches on, and its share is measured from there: if the rule leaves its bounds
    again, it is demoted again.

    \b
    Examples:
      adledger rules resume IP_DATACENTER --author mia --reason "a new campaign on hosted desktops, checked"
    """
    from adledger.pipeline.cli.rules_tables import RulesTables
    from adledger.pipeline.errors import UsageError
    from adledger.sinks.rules import AlertKind, AlertRow

    settings = given.settings
    author = author or getpass.getuser()
    with connect.client(settings) as client:
        tables = RulesTables(client, settings.database)
        demoted = tables.demoted(tables.in_force())
        if rule not in demoted:
            raise UsageError(
                f"{rule} is not demoted to flag; demoted rules: {', '.join(demoted) or 'none'}",
                remedy="adledger rules status",
            )
        for version in demoted[rule]:
            tables.add_alert(AlertRow(AlertKind.RESUME, version, rule, author=author, what=reason))
    lanes = sorted(lane for where in demoted[rule].values() for lane in where)
    if as_json:
        out_json({"rule": rule, "lanes": lanes})
    else:
        out(f"{rule} enforces again in lanes {', '.join(map(str, lanes))}, from their next batches on")


def _checked(path: Path, settings: "Settings") -> "tuple[RuleSet, str]":
    from adledger.pipeline.rules.loader import load_checked

    return load_checked(path, settings.rule_horizon_minutes_max)
