"""`adledger demo`: everything once, end to end, held against the truth."""

import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import connect, options
from pipeline.cli.output import out, out_json, out_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtest.demo import Filled, TopPublisher
    from loadtest.verify import Report
    from pipeline.ledger.totals import Summary
    from pipeline.settings import Settings

PROBLEMS_SHOWN_MAX = 20
INTERRUPTED = 130


def demo(
    *,
    events: Annotated[int, typer.Option(min=1, metavar="N", help="Records to generate.")] = 2_000_000,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="Another seed is other traffic.")] = 1,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="A new or empty folder (default: data/demo, data/demo-2 ...)."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run everything end to end, and hold it against the truth.

    It imports two real logs (a web server's, an ad network's), generates events whose truth is known (1 % duplicates, 0.1 % malformed, 2 % clicks, 400,000 publishers), runs them through the pipeline into an embedded ClickHouse, and compares the ledger, events and rollups with the truth, row by row, to the nano. Exits with 1 if anything differs. The folder is kept, to look around in.

    \b
    Examples:
      adledger demo
      adledger demo --events 10000000 --seed 7
      adledger demo --events 100000 --data-dir /tmp/ads --json
    """
    from loadtest.demo import CLICKHOUSE, LOG, check, fill_log, fresh_folder, top_publishers
    from loadtest.model import TrafficModel
    from pipeline.addresses import EmbeddedAddress, FilesAddress
    from pipeline.cli.demo_progress import shown
    from pipeline.settings import Settings

    begin = time.monotonic()
    folder = fresh_folder(data_dir)
    where: dict[str, Any] = {
        "source": FilesAddress(folder / LOG),
        "clickhouse": EmbeddedAddress(folder / CLICKHOUSE),
    }
    settings = Settings(**where)
    model = TrafficModel(
        seed=seed,
        events=events,
        currency=settings.currency,
        dedupe_window_hours=settings.dedupe_window_hours,
        acceptance_hours_max=settings.acceptance_hours_max,
    )
    with shown() as screen:
        filled = fill_log(folder / LOG, model, screen)
        with connect.server(settings) as address:
            served = settings.model_copy(update={"clickhouse": address})
            with screen.running(filled.lane_records.tolist(), _lane_counts(served, model.partitions)):
                summary = _run(served, screen.say)
            screen.say("comparing every table with the truth")
            with connect.client(served) as client:
                report = check(filled, client, settings.database)
                top = top_publishers(client, settings.database)
    result = Result(folder, seed, filled, summary, report, top, time.monotonic() - begin)
    out_json(_as_json(result)) if as_json else _print_text(result)
    if not result.fine:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo did and found."""

    folder: Path
    seed: int
    filled: "Filled"
    summary: "Summary"
    report: "Report"
    top: "Sequence[TopPublisher]"
    seconds: float

    @property
    def fine(self) -> bool:
        """Whether everything adds up and is as the truth has it."""
        return self.report.equal and self.summary.conserved and self.summary.continuous


def _run(settings: "Settings", say: "Callable[[str], None]") -> "Summary":
    from pipeline.lanes.start import run_worker

    summary = run_worker(settings, until_caught_up=True, progress=say)
    if summary is None:  # stopped by a signal before the end
        raise typer.Exit(INTERRUPTED)
    return summary


def _lane_counts(settings: "Settings", lanes: int) -> "Callable[[], Sequence[int]]":
    """Return what asks the ledger how many records of each lane are done."""

    def counts() -> list[int]:
        done = [0] * lanes
        with connect.client(settings) as client:
            for lane, records in client.execute(
                f"SELECT lane, sum(records_received) FROM {settings.database}.ledger GROUP BY lane"  # noqa: S608
            ):
                done[lane] = records
        return done

    return counts


def _as_json(result: Result) -> dict[str, Any]:
    report, filled = result.report, result.filled
    return result.summary.as_json() | {
        "truth_equal": report.equal,
        "publisher_minutes": report.rows_compared,
        "publisher_minutes_wrong": report.rows_wrong,
        "wrong": [*report.wrong_counts, *map(str, report.differences)],
        "explanations": report.explanations,
        "real_records": filled.real_records,
        "generated_records": filled.generated_records,
        "generate_seconds": round(filled.generate_seconds, 3),
        "seconds": round(result.seconds, 3),
        "peak_memory_bytes": _peak_memory_bytes(),
        "seed": result.seed,
        "data_dir": str(result.folder),
    }


def _print_text(result: Result) -> None:
    report, filled, summary = result.report, result.filled, result.summary
    out("")
    out_table(
        ("class", "ledger", "truth", "ledger's money", "truth's money", "", "equal"), _class_rows(report)
    )
    out("")
    for problem in [*report.wrong_counts, *map(str, report.differences), *report.explanations][
        :PROBLEMS_SHOWN_MAX
    ]:
        out(f"wrong: {problem}")
    if report.equal:
        out(
            f"every table equals the truth: {report.rows_compared:,} publisher-minutes in records and nanos, and each lane's"
        )
        out("classes, wrong keys, conflicting duplicates and dead letters")
    else:
        out(
            f"NOT EQUAL: {report.rows_wrong:,} rows of publisher-minutes, {len(report.wrong_counts):,} counts"
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
            f"({per_million:.2f} a million events), {_peak_memory_bytes() / 2**20:,.0f} MiB at most"
        )
    out("")
    out(WAYS.format(adledger=_program(), folder=result.folder, tables=result.folder / "clickhouse"))


def _class_rows(report: "Report") -> list[tuple[object, ...]]:
    """Return a row for each class and currency: records and money by the ledger and by the truth."""
    from pipeline.ledger.totals import WITHOUT_MONEY, money_text
    from schemas.classes import CLASS_NAMES, Class
    from schemas.wire import currency_text

    expected, received = report.truth.money(), report.truth.classes.sum(axis=0)
    rows: list[tuple[object, ...]] = []
    for code in Class:
        currencies = sorted({u for c, u in {*expected, *report.totals.records_by_currency} if c == code})
        if code in WITHOUT_MONEY or not currencies:
            found, should = report.totals.records.get(code, 0), int(received[code])
            rows.append((CLASS_NAMES[code], found, should, None, None, "", _yes(found == should)))
            continue
        for currency in currencies:
            records, nanos = (
                of.get((code, currency), 0)
                for of in (report.totals.records_by_currency, report.totals.nanos_by_currency)
            )
            due = expected.get((code, currency), (0, 0))
            equal = _yes((records, nanos) == due)
            row = CLASS_NAMES[code], records, due[0], money_text(nanos), money_text(due[1])
            rows.append((*row, currency_text(currency), equal))
    return rows


WAYS = """\
everything is in {folder}; to look around:
  {adledger} query 'SELECT * FROM v_events LIMIT 3' --format Vertical --clickhouse embedded:{tables}
  {adledger} dead-letters list --clickhouse embedded:{tables}
  {adledger} ledger check --clickhouse embedded:{tables}
or serve it, for other clients:
  {adledger} clickhouse serve {tables}
  clickhouse-client --database adledger --query 'SELECT class, count() FROM events GROUP BY class'
  curl 'http://localhost:8123/?database=adledger' -d 'SELECT * FROM v_rollup_minute LIMIT 3 FORMAT Pretty'"""


def _program() -> str:
    """Return how this program is called from here: by its name where the PATH knows it, else as it was called."""
    called = sys.argv[0]
    return "adledger" if shutil.which("adledger") or called.endswith(".py") else called


def _yes(holds: bool) -> str:  # noqa: FBT001 - a word for a value
    return "yes" if holds else "NO"


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
