"""`adledger loadtest report` and `adledger loadtest compare`: what came of runs, and whether it changed."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.output import err, out, out_json

RUNS = Path("data") / "loadtest"

Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run folders are.")]


def report(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder, or `last`.")] = "last",
    *,
    open_it: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    runs: Runs = RUNS,
    as_json: options.Json = False,
) -> None:
    """Write a run's report: report.html (one file, no network), report.md and junit.xml, beside what the run wrote.

    \b
    Examples:
      adledger loadtest report last --open
      adledger loadtest report 20260102t030405_ab12 --json
    """
    from loadtest.report.write import HTML, write_report
    from loadtest.results import RunFolder

    written = write_report(RunFolder.find(runs, name))
    if as_json:
        out_json({file: str(path) for file, path in written.items()})
    else:
        for path in written.values():
            out(str(path))
    if open_it:
        import webbrowser

        if not webbrowser.open(written[HTML].resolve().as_uri()):
            err(f"no browser could be started: open {written[HTML]} by hand")
