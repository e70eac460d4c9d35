"""`python -m adledger.loadtest.benchmarks`: what `make bench-comparison` runs."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from adledger.loadtest.benchmarks.bench import run_rounds
from adledger.loadtest.benchmarks.catalog import CONTESTANTS
from adledger.loadtest.benchmarks.render import Machine, plot, summaries, table
from adledger.loadtest.benchmarks.traffic import FilledTopic, write_traffic
from adledger.loadtest.lab.broker import LOAD_JVM, LocalBroker
from adledger.pipeline.errors import AdledgerError


def main() -> int:
    """Run the benchmark; 0: all counts are right; 1: one is wrong, or a contestant returned none."""
    given = _arguments()
    chosen = [
        contestant for contestant in CONTESTANTS if not given.only or contestant.name in given.only.split(",")
    ]
    before = Machine.here()
    with tempfile.TemporaryDirectory(prefix="adledger-comparison-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        with LocalBroker(folder / "broker", jvm=LOAD_JVM) as broker:
            results = run_rounds(
                chosen, given.rounds, _traffic(broker.servers), broker.servers, folder / "runs", _say
            )
    rows = summaries(results)
    sys.stdout.write(f"\n{before}\n\n{table(rows)}\n")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "comparison.json").write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
        (given.out / "comparison.md").write_text(f"{before}\n\n{table(rows)}\n")
        (given.out / "comparison.svg").write_text(plot(rows))
        _say(f"written to {given.out}")
    return int(any(row.failure or row.rows_wrong for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-comparison", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each tool (3); the table shows medians"
    )
    parser.add_argument(
        "--only", default="", help=f"comma-separated, of {', '.join(p.name for p in CONTESTANTS)}"
    )
    parser.add_argument(
        "--out", type=Path, help="a folder for comparison.md, comparison.svg and comparison.json"
    )
    given = parser.parse_args()
    unknown = set(given.only.split(",")) - {contestant.name for contestant in CONTESTANTS} - {""}
    if unknown or given.rounds < 1:
        parser.error(f"no contestant {', '.join(sorted(unknown))}" if unknown else "--rounds is 1 at least")
    return given


def _traffic(servers: str) -> Callable[[int], FilledTopic]:
    made: dict[int, FilledTopic] = {}

    def of(events: int) -> FilledTopic:
        if events not in made:
            _say(f"writing {events:,} events")
            made[events] = write_traffic(servers, events)
        return made[events]

    return of


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AdledgerError as error:
        _say(f"bench-comparison: {error}")
        sys.exit(error.exit_code)
