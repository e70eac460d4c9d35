"""`adledger chaos`: break real servers and workers, and check that nothing is lost or counted twice."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, out, out_json
from adledger.pipeline.errors import UsageError

RUNS = Path("data") / "chaos"


def chaos(
    *,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Seed of the order and times of the faults, and of the traffic.")] = 1,
    duration: Annotated[str | None, typer.Option("--duration", metavar="D", help="How long to start faults (10m, 1h); default: one round.")] = None,
    faults: Annotated[str, typer.Option("--faults", metavar="KIND[,KIND...]", help="Only these kinds; default: all.")] = "",
    workers: Annotated[int, typer.Option("--workers", min=2, max=16, metavar="N", help="Worker processes.")] = 3,
    rate: Annotated[float, typer.Option("--rate", min=100, max=20_000, metavar="R", help="Records sent per second.")] = 1_500,
    outage: Annotated[str, typer.Option("--outage", metavar="D", help="How long ClickHouse is unreachable in the fault `outage`.")] = "15s",
    slow: Annotated[str, typer.Option("--slow", metavar="D", help="How long ClickHouse is slow in the fault `slow-clickhouse`.")] = "6s",
    controls: Annotated[bool, typer.Option("--controls/--no-controls", help="Repeat each fault without its protection, and check that it does harm.")] = True,
    folder: Annotated[Path | None, typer.Option("--folder", metavar="DIR", help="Logs and report; default: data/chaos/TIME.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the servers' data too.")] = False,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Break real servers and workers, and check every count.

    Starts a Kafka broker, the embedded ClickHouse and workers, and sends traffic with a known ground truth while
    workers, broker and ClickHouse are killed, paused, cut off, filled up and misled. The effect of each fault is
    observed: a run whose fault took no effect does not count. At the end every table is compared with the ground
    truth, to the nano.

    \b
    Faults (docs/chaos.md describes each, and what protects against it):
      kill-worker pause-worker kill-broker kill-clickhouse drop-insert-reply drop-commit-reply
      join-leave full-disk clock-jump pause-clickhouse slow-clickhouse outage

    \b
    Exit codes:
      0    every fault took effect, and every table is as expected
      1    tables differ from the ground truth, a lane did not recover, or a worker died
      97   invalid: a fault took no effect, or a control showed no difference
      130  interrupted
      2    usage error

    \b
    Examples:
      adledger chaos
      adledger chaos --seed 7 --no-controls
      adledger chaos --faults kill-worker,kill-clickhouse --duration 10m --no-controls
      adledger chaos --faults outage --outage 10m --no-controls
    """
    from adledger.loadtest.chaos.plan import chosen
    from adledger.loadtest.chaos.run import ChaosRequest, execute

    where = _empty(folder or RUNS / datetime.now(UTC).strftime("%Y%m%dt%H%M%S"))
    report = execute(
        ChaosRequest(
            seed=seed, faults=chosen([name for name in faults.split(",") if name]), folder=where,
            seconds=None if duration is None else _seconds(duration, "--duration"), workers=workers,
            rate_per_second=rate, outage_seconds=_seconds(outage, "--outage"), slow_seconds=_seconds(slow, "--slow"),
            controls=controls, keep=keep,
        ),
        err,
    )  # fmt: skip
    if as_json:
        out_json(report.as_json() | {"folder": str(where)})
    else:
        for line in report.page():
            out(line)
    raise typer.Exit(report.verdict.exit_code)


def _empty(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", remedy="name a new or empty folder")
    return folder


def _seconds(text: str, flag: str) -> float:
    from adledger.loadtest.profiles.profile import DURATION_SECONDS_MAX, seconds_of

    try:
        seconds = seconds_of(text)
    except ValueError as error:
        raise UsageError(f"{flag} {error}", remedy=f"e.g. {flag} 30s") from None
    if not 1 <= seconds <= DURATION_SECONDS_MAX:
        raise UsageError(f"{flag} {text} is out of bounds", remedy=f"1s to {DURATION_SECONDS_MAX // 3600}h")
    return seconds
