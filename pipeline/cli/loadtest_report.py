"""`adledger loadtest report` and `adledger loadtest compare`: a run's report, and whether runs differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, out, out_json, out_table
from adledger.pipeline.extras import require

if TYPE_CHECKING:
    from adledger.loadtest.compare.runs import Comparison

RUNS = Path("data") / "loadtest"
EXIT_WORSE, EXIT_REFUSED, EXIT_UNDERPOWERED = 99, 97, 96
AGAINST = "--against"

Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder of runs.")]


def report(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder, or `last`.")] = "last",
    *,
    open_it: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    runs: Runs = RUNS,
    as_json: options.Json = False,
) -> None:
    """Write a run's report: report.html, report.md and junit.xml.

    The files go into the run's folder. report.html is one file, and needs no network.

    \b
    Examples:
      adledger loadtest report last --open
      adledger loadtest report 20260102t030405_ab12 --json
    """
    require("loadtest", "adledger loadtest report")
    from adledger.loadtest.report.write import HTML, write_report
    from adledger.loadtest.results.run_folder import RunFolder

    written = write_report(RunFolder.find(runs, name))
    if as_json:
        out_json({file: str(path) for file, path in written.items()})
    else:
        for path in written.values():
            out(str(path))
    if open_it:
        import webbrowser

        if not webbrowser.open(written[HTML].resolve().as_uri()):
            err(f"could not start a browser: open {written[HTML]} yourself")


class AgainstMany(TyperCommand):
    """A command whose --against takes every name up to the next option: `compare A1 A2 A3 --against B1 B2 B3`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option for each of its names: the parser takes one value per option."""
        return super().parse_args(ctx, repeated(args))


def repeated(args: list[str]) -> list[str]:
    """Return arguments with `--against` before each name that follows it."""
    found: list[str] = []
    against = False
    for arg in args:
        if arg.startswith("-"):
            against = arg == AGAINST
            found += [] if against else [arg]
        else:
            found += [AGAINST, arg] if against else [arg]
    return [*found, AGAINST] if args[-1:] == [AGAINST] else found


def compare(
    a: Annotated[list[str], typer.Argument(metavar="A...", help="Runs of the new version, at least 3.")],
    *,
    against: Annotated[list[str], typer.Option(AGAINST, metavar="B...", help="Runs of the old version, at least 3.")],
    across_machines: Annotated[bool, typer.Option("--across-machines", help="Compare runs of different machines.")] = False,
    min_effect: Annotated[list[str] | None, typer.Option("--min-detectable-effect", metavar="[METRIC=]N%", help="Fail where a change of this size could be missed, in every metric or in one. Repeatable.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout, for a merge request.")] = False,
    runs: Runs = RUNS,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Report whether runs A are worse or better than runs B, or whether the difference is noise.

    Each metric's change has a confidence interval (Welch's test on logarithms). A change is reported where the interval
    excludes 0 and the change is large enough to matter: 3 % of worker CPU per event and of rate, 10 % of freshness and
    memory. Comparing A with A reports no change in at least 98 of 100 comparisons. Alternate the runs, A B A B ..., on a
    quiet machine.

    Runs that scatter hide changes. With --min-detectable-effect the comparison passes only where a change of that size
    would have been reported (in four of five such comparisons: "detectable from" in the table).

    \b
    Exit codes:
      0    A is not worse
      99   A is worse
      97   not comparable: too few runs, other loads, other machines, invalid runs
      96   A is not found to be worse, but a change of --min-detectable-effect could have been missed
      2    usage error, or no such run

    \b
    Examples:
      adledger loadtest compare a1 a2 a3 a4 a5 --against b1 b2 b3 b4 b5
      adledger loadtest compare new/* --against old/* --min-detectable-effect worker_cpu_us_per_event=10%
      adledger loadtest compare new/* --against old/* --markdown >> $GITHUB_STEP_SUMMARY
    """
    require("loadtest", "adledger loadtest compare")
    from adledger.loadtest.compare import render
    from adledger.loadtest.compare import runs as comparable
    from adledger.loadtest.compare.detectable import min_detectable_effects
    from adledger.loadtest.results.run_folder import RunFolder

    effects = min_detectable_effects(min_effect or [])
    sides = [[comparable.read(RunFolder.find(runs, name)) for name in names] for names in (a, against)]
    found = comparable.compare(*sides, across_machines=across_machines, min_effects=effects)
    if as_json:
        out_json(render.as_json(found))
    elif as_markdown:
        out(render.markdown(found).rstrip())
    else:
        _print(found)
    codes = {"worse": EXIT_WORSE, "refused": EXIT_REFUSED, "underpowered": EXIT_UNDERPOWERED}
    raise typer.Exit(codes.get(found.verdict, 0))


def _print(found: "Comparison") -> None:
    from adledger.loadtest.compare import render

    if found.changes:
        out_table(render.HEADER, render.rows(found))
        out("")
        out(render.EXPLAINED.replace("`", ""))
        out("")
    for line in found.undetectable:
        out(f"  could have been missed: {line}")
    for line in (*found.refused, *found.cautions, *(f"A differs in {line}" for line in found.differs)):
        out(f"  {line}")
    out(render.SENTENCES[found.verdict])
