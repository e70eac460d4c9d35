"""`adledger loadtest`: how much load a deployment sustains, and whether its counts stay exact."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.loadtest_day import day
from adledger.pipeline.cli.loadtest_report import RUNS, AgainstMany, Runs, compare, report
from adledger.pipeline.cli.loadtest_send import send
from adledger.pipeline.cli.output import out, out_json, out_table
from adledger.pipeline.errors import UsageError
from adledger.pipeline.extras import require

if TYPE_CHECKING:
    from adledger.loadtest.results.run_folder import RunFolder
    from adledger.loadtest.runner.run import RunRequest

loadtest = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder, or `last`.")]


@loadtest.callback()
def root() -> None:
    """Run, verify and compare load tests.

    Traffic has a known ground truth, so that every table can be checked, row by row.

    \b
    Examples:
      adledger loadtest list
      adledger loadtest run steady-day --target local
      adledger loadtest run steady-day --rate 50000 --duration 1m --target kafka://k1:9092 --clickhouse clickhouse://ch1:9000
      adledger loadtest report last --open
      adledger loadtest compare a1 a2 a3 --against b1 b2 b3
      adledger loadtest clean last --all
    """


@loadtest.command("run")
def run(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A name (`loadtest list`) or a .toml file.")],
    *,
    target: Annotated[str, typer.Option("--target", metavar="WHERE", help="kafka://HOST:PORT[,...], files:DIR, or local: starts its own broker and ClickHouse.")],
    rate: Annotated[str | None, typer.Option("--rate", metavar="R|max", help="Events per second (a ramp's peak, a replay's mean); max: as fast as possible.")] = None,
    duration: Annotated[str | None, typer.Option("--duration", metavar="D", help="30s, 5m ...; the warm-up comes first.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, metavar="N", help="Workers to start; 0: you run them, with the run's adledger.toml.")] = 1,
    worker_urls: Annotated[list[str] | None, typer.Option("--worker", metavar="URL", help="URL of the pages of a worker that you run. Repeatable.")] = None,
    clickhouse: Annotated[str, typer.Option("--clickhouse", metavar="ADDRESS", help="clickhouse://... or embedded:DIR; not with local.")] = "",
    senders: Annotated[int, typer.Option("--senders", min=1, metavar="N", help="Processes that generate and send.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="A different seed gives different traffic.")] = 1,
    find_max: Annotated[bool, typer.Option("--find-max", help="Search for the highest rate whose thresholds hold.")] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare every table with the ground truth at the end.")] = True,
    faults: Annotated[list[str] | None, typer.Option("--fault", metavar="KIND@AT[+DURATION]", help="E.g. kill-worker@10s, pause-clickhouse@10s+5s. Repeatable.")] = None,
    watch: Annotated[list[str] | None, typer.Option("--watch", metavar="PART=PID", help="Sample a process as worker, broker or clickhouse. Repeatable.")] = None,
    run_id: Annotated[str, typer.Option("--run-id", metavar="ID", help="Letters, digits, _; default: time and four digits.")] = "",
    assignments: options.Set = None,
    runs: Runs = RUNS,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Run a load test, verify its counts, and report whether its thresholds held.

    The load is an open loop: its schedule never waits for the system. A stall shows as latency; events that could not
    be sent by the end of the schedule are dropped_events. The run has its own database, topics and group
    (adledger_lt_ID), and a folder with summary.json, seconds.csv and freshness.hlog.

    \b
    Exit codes:
      0    thresholds held, and every table is as expected
      99   thresholds were crossed, or tables differ from what is expected
      98   nothing was crossed, but the verification did not run
      97   invalid: the generator fell behind, a delivery failed, a worker died, a fault took no effect
      130  interrupted: the measurements so far are kept
      2    usage error
      1    the run could not start

    \b
    Examples:
      adledger loadtest run steady-day --target local
      adledger loadtest run steady-day --target local --rate max --duration 10s
      adledger loadtest run steady-day --target local --find-max
      adledger loadtest run click-farm --target local --fault pause-clickhouse@10s+5s
      adledger loadtest run ./mine.toml --target files:data/lt-log --clickhouse embedded:data/lt-clickhouse
    """
    request = _request(
        profile, target=target, clickhouse=clickhouse, rate=rate, duration=duration, workers=workers,
        worker_urls=worker_urls or [], senders=senders, seed=seed, verify=verify, faults=faults or [],
        watch=watch or [], run_id=run_id, assignments=assignments or [], runs=runs,
    )  # fmt: skip
    raise typer.Exit(_execute(request, find_max=find_max, as_json=as_json))


def _execute(request: "RunRequest", *, find_max: bool, as_json: bool) -> int:
    """Execute a run, print its result, and return the exit code."""
    require("loadtest", "adledger loadtest run")
    from adledger.loadtest.report.write import HTML, write_report
    from adledger.loadtest.runner.load import Interrupt
    from adledger.loadtest.runner.run import execute
    from adledger.loadtest.runner.search import find_highest
    from adledger.pipeline.cli.loadtest_screen import print_end, progress_screen

    screen = progress_screen()
    try:
        with Interrupt().watched() as interrupt:
            folder, summary = (find_highest if find_max else execute)(request, screen, interrupt)
    finally:
        _close(screen)
    written = write_report(folder)
    if as_json:
        import dataclasses

        out_json(dataclasses.asdict(summary) | {"folder": str(folder.path), "report": str(written[HTML])})
    else:
        print_end(folder, summary)
        out(f"report: {written[HTML]}")
    return summary.verdict.exit_code


@loadtest.command("verify")
def verify(
    name: RunName = "last",
    *,
    clickhouse: Annotated[str, typer.Option("--clickhouse", metavar="ADDRESS", help="The run's server, with its password.")] = "",
    runs: Runs = RUNS,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Compare every table of a run with its ground truth again, and explain each difference by event.

    Exit codes: 0 equal, 1 not equal, 2 usage error.

    \b
    Examples:
      adledger loadtest verify last
      adledger loadtest verify 20260102t030405_ab12 --json
    """
    require("loadtest", "adledger loadtest verify")
    from adledger.loadtest.report.write import write_report
    from adledger.loadtest.results.run_folder import RunFolder
    from adledger.loadtest.runner.run import verify_again
    from adledger.pipeline.cli.loadtest_screen import print_end, progress_screen

    folder, screen = RunFolder.find(runs, name), progress_screen()
    summary = verify_again(folder, clickhouse, screen)
    _close(screen)
    write_report(folder)
    if as_json:
        import dataclasses

        out_json(dataclasses.asdict(summary.verification))
    else:
        print_end(folder, summary)
    if not summary.verification.equal:
        raise typer.Exit(1)


loadtest.command("send")(send)
loadtest.command("report")(report)
loadtest.command("day")(day)
loadtest.command("compare", cls=AgainstMany)(compare)


@loadtest.command("clean")
def clean(
    name: RunName,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Remove the run's folder too.")] = False,
    clickhouse: Annotated[str, typer.Option("--clickhouse", metavar="ADDRESS", help="The run's server, with its password.")] = "",
    runs: Runs = RUNS,
) -> None:  # fmt: skip
    """Remove exactly what a run created: its database, topics, group, log, and its own servers' data.

    \b
    Examples:
      adledger loadtest clean last
      adledger loadtest clean 20260102t030405_ab12 --all
    """
    from adledger.loadtest.results.run_folder import RunFolder
    from adledger.loadtest.runner.clean import clean as clean_run

    for removed in clean_run(RunFolder.find(runs, name), clickhouse=clickhouse, everything=everything):
        out(f"removed {removed}")


@loadtest.command("list")
def list_command(*, runs: Runs = RUNS, as_json: options.Json = False) -> None:
    """List the profiles that ship with adledger, and the runs in the runs folder.

    \b
    Examples:
      adledger loadtest list
      adledger loadtest list --json
    """
    from adledger.loadtest.profiles import files as profile_files
    from adledger.loadtest.results.run_folder import runs_in

    profiles = [profile_files.load(name) for name in profile_files.names()]
    folders = list(runs_in(runs))
    if as_json:
        out_json(
            {"profiles": [p.as_json() for p in profiles], "runs": [_run_json(folder) for folder in folders]}
        )
        return
    out_table(
        ("profile", "executor", "events/s", "seconds", "description"),
        [(p.name, p.load.executor, p.load.rate, p.load.seconds, p.description) for p in profiles],
    )
    if folders:
        out("")
        rows = [_run_json(folder) for folder in folders]
        out_table(tuple(rows[0]), [tuple(row.values()) for row in rows])


def _run_json(folder: "RunFolder") -> dict[str, Any]:
    run = folder.run()
    summary = folder.summary() if folder.ended else None
    return {
        "run": folder.path.name, "profile": run.profile_name, "events/s": run.rate_per_second, "target": run.target,
        "verdict": summary.verdict.value if summary else "not ended",
    }  # fmt: skip


def _request(profile: str, **given: Any) -> "RunRequest":
    from adledger.loadtest.profiles import files as profile_files
    from adledger.loadtest.profiles.profile import fault_of
    from adledger.loadtest.runner.run import RunRequest
    from adledger.loadtest.runner.target import LOCAL, RunTarget

    if given["target"] == LOCAL and (given["clickhouse"] or given["worker_urls"]):
        raise UsageError("--target local starts its own servers", remedy="remove --clickhouse and --worker")
    if given["run_id"] and not (given["run_id"].isidentifier() or given["run_id"].replace("_", "").isalnum()):
        raise UsageError(f"--run-id {given['run_id']!r} is not a name", remedy="use letters, digits and _")
    return RunRequest(
        profile=profile_files.load(profile),
        target=RunTarget(given["target"], given["clickhouse"], given["workers"], tuple(given["worker_urls"]), _pids(given["watch"])),
        runs=given["runs"], command=("adledger", *sys.argv[1:]), run_id=given["run_id"], rate=_rate(given["rate"]),
        seconds=_seconds(given["duration"]), seed=given["seed"], senders=given["senders"], verify=given["verify"],
        faults=tuple(map(fault_of, given["faults"])), settings=_settings(given["assignments"]),
    )  # fmt: skip


def _settings(assignments: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    kafka: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: no value", remedy="write --set NAME=VALUE")
        if name.startswith("kafka."):
            kafka[name.removeprefix("kafka.")] = value
        else:
            found[name.strip().replace("-", "_")] = value
    return found | ({"kafka": kafka} if kafka else {})


def _rate(text: str | None) -> float | None:
    from adledger.loadtest.profiles.profile import RATE_MAX

    if text is None or text == "max":
        return None if text is None else 0.0
    try:
        rate = float(text.replace("_", "").replace(",", ""))
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= RATE_MAX:
        raise UsageError(
            f"--rate {text} is not a rate", remedy=f"give events per second, 1 to {RATE_MAX:,}, or max"
        )
    return rate


def _seconds(text: str | None) -> float | None:
    from adledger.loadtest.profiles.profile import DURATION_SECONDS_MAX, seconds_of

    if text is None:
        return None
    try:
        seconds = seconds_of(text)
    except ValueError as error:
        raise UsageError(f"--duration {error}", remedy="e.g. --duration 30s") from None
    if not 1 <= seconds <= DURATION_SECONDS_MAX:
        raise UsageError(
            f"--duration {text} is out of bounds", remedy=f"1s to {DURATION_SECONDS_MAX // 3600}h"
        )
    return seconds


def _pids(watch: list[str]) -> dict[str, tuple[int, ...]]:
    from adledger.loadtest.results.names import PARTS

    found: dict[str, tuple[int, ...]] = {}
    for text in watch:
        part, _, pid = text.partition("=")
        if part not in PARTS or not pid.isdigit():
            raise UsageError(f"--watch {text}: not PART=PID", remedy=f"PART is one of {', '.join(PARTS)}")
        found[part] = (*found.get(part, ()), int(pid))
    return found


def _close(screen: Any) -> None:
    if hasattr(screen, "close"):
        screen.close()
