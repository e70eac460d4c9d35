"""`adledger loadtest day`: what a whole day of billions of events takes, from a measured sample."""

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, out, out_json, out_table
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.loadtest.day.extrapolate import Coefficient, Figure
    from adledger.loadtest.day.measure import MeasuredSample
    from adledger.loadtest.day.plan import Whole

CROSSED = 99


def day(
    *,
    scale: Annotated[str, typer.Option("--scale", metavar="1/N", help="Fraction of the day, from 1/3000 (one of 50 lanes) to 1/60 (all lanes).")] = "1/1000",
    events: Annotated[int, typer.Option("--events", min=1_000_000, metavar="N", help="Records of the whole day.")] = 3_000_000_000,
    lanes: Annotated[int, typer.Option("--lanes", min=1, max=1_000, metavar="N", help="Lanes of the whole day.")] = 50,
    batch_seconds: Annotated[float, typer.Option("--batch-seconds", min=0.1, max=60, metavar="S", help="Age at which production closes batches.")] = 5.0,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="A different seed gives different traffic.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="Run this scale only, and compare it with no smaller one.")] = False,
    assignments: options.Set = None,
    folder: Annotated[Path | None, typer.Option("--folder", metavar="DIR", help="A new folder for results, logs and tables (default: data/loadtest/day-TIME).")] = None,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Run a compressed 24 hours and extrapolate to the whole day.

    A scale is a number of whole lanes, each with its own users and all publishers, at the rate and with the batches of
    production. The first minute of each hour is replayed. Log time runs through all 24 hours: hours and days close,
    the fraud rules' windows rotate, and retention drops old days. Everything is compared with the ground truth.
    Two smaller scales run too: if an event does not cost the same at all three, the output marks that figure, and
    nothing should be extrapolated from it.

    \b
    Exit codes:
      0    verified, and the coefficients agree within their tolerances (--once: verified)
      99   a coefficient does not agree, or the tables differ from the ground truth
      2    usage error
      1    the run could not start

    \b
    Examples:
      adledger loadtest day
      adledger loadtest day --scale 1/100
      adledger loadtest day --scale 1/3000 --once --json
      adledger loadtest day --batch-seconds 1 --set rules=none
    """
    from adledger.loadtest.day.extrapolate import coefficients, lane_ids, whole_day
    from adledger.loadtest.day.measure import measure
    from adledger.loadtest.day.plan import Whole, samples
    from adledger.loadtest.day.probe import probe

    whole = Whole(events=events, lanes=lanes, batch_seconds=batch_seconds)
    wanted = samples(whole, _fraction(scale), seed)
    home = _home(folder)
    settings = {"rules": "default", **_settings(assignments)}
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = [
        measure(sample, home / f"lanes-{sample.lanes}", settings, err)
        for sample in (wanted[-1:] if once else wanted)
    ]
    known = coefficients(found)
    err("timing deduplication among a whole lane's ids")
    probes = probe(found[-1].dedupe_entries // found[-1].lanes, lane_ids(whole, known), whole.batch_rows)
    figures = whole_day(whole, known, probes)
    run = {"began": began, "folder": str(home), "settings": settings}
    result = _as_json(whole, found, known, figures) | run
    (home / "day.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    out_json(result) if as_json else _print(whole, found, known, figures, home)
    if any(sample.problems for sample in found) or any(c.holds is False for c in known.values()):
        raise typer.Exit(CROSSED)


def _as_json(
    whole: "Whole", found: "list[MeasuredSample]", known: "dict[str, Coefficient]", figures: "list[Figure]"
) -> dict[str, Any]:
    import dataclasses

    from adledger.loadtest.lab.environment import cpu_name
    from adledger.pipeline.settings import cores

    return {
        "whole": dataclasses.asdict(whole),
        "samples": [dataclasses.asdict(sample) for sample in found],
        "coefficients": [
            dataclasses.asdict(c) | {"deviation": c.deviation, "holds": c.holds} for c in known.values()
        ],
        "whole_day": [dataclasses.asdict(figure) for figure in figures],
        "machine": f"{cpu_name()}, {cores()} cores",
    }


def _print(
    whole: "Whole", found: "list[MeasuredSample]", known: "dict[str, Coefficient]", figures: "list[Figure]", home: Path
) -> None:  # fmt: skip
    out_table(
        ("scale", "lanes", "events", "batches", "worker CPU-s", "events/CPU-s", "ClickHouse CPU-s", "worker MiB", "retention", "verified"),
        [
            (
                s.scale, s.lanes, s.events, s.batches, f"{s.worker_cpu_seconds:.1f}",
                round(s.events / s.worker_cpu_seconds), f"{s.server_cpu_seconds:.1f}", s.worker_memory_bytes >> 20,
                f"{s.retention_runs} runs, {s.retention_rows:,} rows", "; ".join(s.problems) or "equal",
            )
            for s in found
        ],
    )  # fmt: skip
    out("")
    scales = tuple(f"at {s.scale}" for s in found)
    out_table(
        ("cost per event", "unit", *scales, "deviation", "tolerance", "holds"),
        [
            (c.name, c.unit, *(f"{v:.4g}" for v in c.values), f"{c.deviation:.1%}", f"{c.tolerance:.0%}", _yes(c.holds))
            for c in known.values()
        ],
    )  # fmt: skip
    out("")
    out(f"the whole day: {whole.events:,} events, {whole.lanes} lanes, batches of {whole.batch_seconds:g} s")
    out_table(
        ("figure", "value", "unit", "formula"),
        [(f.name, f"{f.value:,.2f}" if f.value < 1_000 else f"{f.value:,.0f}", f.unit, f.formula) for f in figures],
    )  # fmt: skip
    out("")
    out(f"{home / 'day.json'} has all figures; each scale's log and tables are beside it")


def _yes(holds: bool | None) -> str:  # noqa: FBT001 - a word for a value
    return "-" if holds is None else "yes" if holds else "NO"


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text.replace("_", "").replace(",", ""))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--scale {text} is not a fraction", remedy="write it as 1/1000") from None


def _home(folder: Path | None) -> Path:
    home = folder or Path("data") / "loadtest" / time.strftime("day-%Y%m%dt%H%M%S", time.gmtime())
    if home.exists() and any(home.iterdir()):
        raise UsageError(f"{home} is not empty", remedy="name a new or empty folder")
    home.mkdir(parents=True, exist_ok=True)
    return home


def _settings(assignments: list[str] | None) -> dict[str, str]:
    found = {}
    for text in assignments or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: no value", remedy="write --set NAME=VALUE")
        found[name.strip().replace("-", "_")] = value
    return found
