"""`adledger demo`: the whole pipeline once, end to end, compared with the ground truth."""

import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import out, out_json, out_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from adledger.loadtest.demo.procedure import Filled, TopPublisher
    from adledger.loadtest.verification.verdicts import VerdictCheck
    from adledger.loadtest.verification.verify import VerificationReport
    from adledger.pipeline.ledger.totals import LedgerSummary, Totals
    from adledger.pipeline.settings import Settings

PROBLEMS_SHOWN_MAX = 20
INTERRUPTED = 130


def demo(
    *,
    events: Annotated[int, typer.Option(min=1, metavar="N", help="Records to generate.")] = 2_000_000,
    seed: Annotated[
        int, typer.Option(min=0, metavar="S", help="A different seed gives different traffic.")
    ] = 1,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="A new or empty folder (default: data/demo, ...)."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run the whole pipeline once, and check every count.

    Imports two real logs (a web server's and an ad network's), generates events with a known ground truth (1 % duplicates, 0.1 % malformed, 2 % clicks, 400,000 publishers, some attacks), and runs them through the pipeline, with the shipped fraud rules, into an embedded ClickHouse. Then it compares the ledger, events and rollups with the ground truth, row by row, to the nano. The ground truth does not say which events are fraud: givt and sivt are compared as billable, and the plain rules evaluate a sample again to check the verdicts. Exits with 1 if anything differs. The folder stays, for you to explore.

    \b
    Examples:
      adledger demo
      adledger demo --events 10000000 --seed 7
      adledger demo --events 100000 --data-dir /tmp/ads --json
    """
    from adledger.loadtest.demo.procedure import (
        CLICKHOUSE,
        LOG,
        check,
        demo_model,
        fill_log,
        fresh_folder,
        top_publishers,
    )
    from adledger.pipeline.addresses import EmbeddedAddress, FilesAddress
    from adledger.pipeline.cli.demo_progress import progress_screen
    from adledger.pipeline.extras import require
    from adledger.pipeline.settings import Settings

    require("embedded", "the demo")
    begin = time.monotonic()
    folder = fresh_folder(data_dir)
    where: dict[str, Any] = {
        "source": FilesAddress(folder / LOG),
        "clickhouse": EmbeddedAddress(folder / CLICKHOUSE),
    }
    settings = Settings(**where)
    model = demo_model(events, seed, settings)
    with progress_screen() as screen:
        filled = fill_log(folder / LOG, model, screen)
        with connect.server(settings) as address:
            served = settings.model_copy(update={"clickhouse": address})
            with screen.running(filled.lane_records.tolist(), _lane_counts(served, model.partitions)):
                summary = _run(served, screen.say)
            screen.say("comparing every table with the ground truth")
            with connect.client(served) as client:
                report, verdicts = check(filled, client, settings)
                top = top_publishers(client, settings.database)
    result = DemoResult(folder, seed, filled, summary, report, verdicts, top, time.monotonic() - begin)
    out_json(_as_json(result)) if as_json else _print_text(result)
    if not result.fine:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo did and found."""

    folder: Path
    seed: int
    filled: "Filled"
    summary: "LedgerSummary"
    report: "VerificationReport"
    verdicts: "VerdictCheck"
    top: "Sequence[TopPublisher]"
    seconds: float

    @property
    def fine(self) -> bool:
        """Whether everything adds up and equals the ground truth."""
        adds_up = self.summary.conserved and self.summary.continuous
        return self.report.equal and not self.verdicts.wrong and adds_up

    @property
    def wrong(self) -> "list[str]":
        """Everything that differs, one line each."""
        report = self.report
        return [*report.wrong_counts, *map(str, report.differences), *self.verdicts.wrong]


def _run(settings: "Settings", say: "Callable[[str], None]") -> "LedgerSummary":
    from adledger.pipeline.lanes.start import run_worker

    summary = run_worker(settings, until_caught_up=True, progress=say)
    if summary is None:  # stopped by a signal before the end
        raise typer.Exit(INTERRUPTED)
    return summary


def _lane_counts(settings: "Settings", lanes: int) -> "Callable[[], Sequence[int]]":
    """Return a function that reads each lane's completed records from the ledger."""

    def counts() -> list[int]:
        done = [0] * lanes
        with connect.client(settings) as client:
            for lane, records in client.execute(
                f"SELECT lane, sum(records_received) FROM {settings.database}.ledger GROUP BY lane"  # noqa: S608
            ):
                done[lane] = records
        return done

    return counts


def _as_json(result: DemoResult) -> dict[str, Any]:
    report, filled = result.report, result.filled
    return result.summary.as_json() | {
        "truth_equal": report.equal,
        "verdicts_evaluated_again": result.verdicts.evaluated_again,
        "publisher_minutes": report.rows_compared,
        "publisher_minutes_wrong": report.rows_wrong,
        "wrong": result.wrong,
        "explanations": report.explanations,
        "real_records": filled.real_records,
        "generated_records": filled.generated_records,
        "generate_seconds": round(filled.generate_seconds, 3),
        "seconds": round(result.seconds, 3),
        "peak_memory_bytes": _peak_memory_bytes(),
        "seed": result.seed,
        "data_dir": str(result.folder),
    }


def _print_text(result: DemoResult) -> None:
    report, filled, summary = result.report, result.filled, result.summary
    out("")
    out_table(
        ("class", "ledger", "expected", "ledger's money", "expected money", "", "equal"), _class_rows(report)
    )
    out("")
    for problem in [*result.wrong, *report.explanations][:PROBLEMS_SHOWN_MAX]:
        out(f"wrong: {problem}")
    if report.equal:
        out(
            f"every table equals the ground truth: {report.rows_compared:,} publisher-minutes in records and nanos, and each lane's"
        )
        out("classes, wrong keys, conflicting duplicates and dead letters")
    else:
        out(
            f"NOT EQUAL: {report.rows_wrong:,} rows of publisher-minutes, {len(report.wrong_counts):,} counts"
        )
    if not result.verdicts.wrong:
        out(
            f"verdicts follow from their reasons; the plain rules agree on {result.verdicts.evaluated_again:,} events evaluated again"
        )
    out(f"conserved: {_yes(summary.conserved)}   continuous: {_yes(summary.continuous)}")
    out("")
    out("top publishers")
    out_table(
        ("publisher", "impressions", "clicks", "money"),
        [(str(row.publisher_id), row.impressions, row.clicks, row.money) for row in result.top],
    )
    out("")
    out(
        f"{filled.real_records:,} real and {filled.generated_records:,} generated records in {result.seconds:.1f} s"
    )
    out(f"generator: {filled.generated_records / filled.generate_seconds:,.0f} events/s")
    if summary.events_per_second and summary.cpu_seconds:
        per_million = summary.cpu_seconds / summary.totals.records_received * 1e6
        out(
            f"pipeline: {summary.events_per_second:,.0f} events/s, {summary.cpu_seconds:.1f} CPU-s "
            f"({per_million:.2f} per million events), {_peak_memory_bytes() / 2**20:,.0f} MiB peak memory"
        )
    out("")
    out(WAYS.format(adledger=_program(), folder=result.folder, tables=result.folder / "clickhouse"))


def _class_rows(report: "VerificationReport") -> list[tuple[object, ...]]:
    """Return a row for each class and currency: records and money, in the ledger and expected.

    The ground truth does not model rules: it has one sum of billable, givt and sivt, in a separate row.
    """
    from adledger.loadtest.verification.verify import FILTERED, counted_as_billable
    from adledger.pipeline.ledger.totals import WITHOUT_MONEY
    from adledger.schemas.classes import CLASS_NAMES, Class

    expected, received = report.ground_truth.money(), report.ground_truth.classes.sum(axis=0)
    decided = (Class.BILLABLE, *FILTERED) if report.before_rules else ()
    rows: list[tuple[object, ...]] = []
    for code in sorted(Class, key=lambda c: c not in decided):
        currencies = sorted({u for c, u in {*expected, *report.totals.records_by_currency} if c == code})
        if code in WITHOUT_MONEY or not currencies:
            found, should = report.totals.records.get(code, 0), int(received[code])
            cells = (
                (None, None, None, "", "")
                if code in decided
                else (should, None, None, "", _yes(found == should))
            )
            rows.append((CLASS_NAMES[code], found, *cells))
        else:
            due = None if code in decided else expected
            rows += [_class_row(CLASS_NAMES[code], report.totals, (code, u), due) for u in currencies]
        if code in decided[-1:]:
            summed = counted_as_billable(report.totals)
            of_all = sorted(u for c, u in {*expected, *summed.records_by_currency} if c == Class.BILLABLE)
            rows += [_class_row("these three", summed, (Class.BILLABLE, u), expected) for u in of_all]
    return rows


def _class_row(
    name: str,
    totals: "Totals",
    key: tuple[int, int],
    expected: "Mapping[tuple[int, int], tuple[int, int]] | None",
) -> tuple[object, ...]:
    """Return the row of one class and currency; without expected figures, their columns are empty."""
    from adledger.pipeline.ledger.totals import money_text
    from adledger.schemas.wire import currency_text

    records, nanos = totals.records_by_currency.get(key, 0), totals.nanos_by_currency.get(key, 0)
    if expected is None:
        return name, records, None, money_text(nanos), None, currency_text(key[1]), ""
    due = expected.get(key, (0, 0))
    equal = _yes((records, nanos) == due)
    return name, records, due[0], money_text(nanos), money_text(due[1]), currency_text(key[1]), equal


WAYS = """\
everything is in {folder}; to explore:
  {adledger} query 'SELECT * FROM v_events LIMIT 3' --format Vertical --clickhouse embedded:{tables}
  {adledger} query 'SELECT step, reason, sum(events), sum(money) FROM v_reasons GROUP BY ALL ORDER BY ALL' --clickhouse embedded:{tables}
  {adledger} explain al-31 --clickhouse embedded:{tables}
  {adledger} dead-letters list --clickhouse embedded:{tables}
  {adledger} ledger check --clickhouse embedded:{tables}
or serve it, for other clients:
  {adledger} clickhouse serve {tables}
  clickhouse-client --database adledger --query 'SELECT class, count() FROM events GROUP BY class'
  curl 'http://localhost:8123/?database=adledger' -d 'SELECT * FROM v_rollup_minute LIMIT 3 FORMAT Pretty'"""


def _program() -> str:
    """Return how to call this program from here: by name if it is on the PATH, else as it was called."""
    called = sys.argv[0]
    return "adledger" if shutil.which("adledger") or called.endswith(".py") else called


def _yes(holds: bool) -> str:  # noqa: FBT001 - a word for a value
    return "yes" if holds else "NO"


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
