"""`adledger check`: events against the contract, before they are sent."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.importing_output import progress_of
from adledger.pipeline.cli.output import err, out, out_json, out_table

if TYPE_CHECKING:
    from adledger.pipeline.importing.contract import ContractProblem, ProblemCounts

STDIN = Path("/dev/stdin")


class OnlyEvents(StrEnum):
    """Events that a topic takes."""

    IMPRESSION = "impression"
    CLICK = "click"


def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="One JSON event a line, plain or compressed (gzip, bzip2, xz, zstd); - is stdin.")],
    *,
    only: Annotated[OnlyEvents | None, typer.Option("--only", help="The topic takes these events alone: others are malformed.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="Print the first N malformed lines; all are counted.")] = 100,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Check events against the contract before you send them.

    The decoder of the workers decides, so what passes is no dead letter. Each malformed line is printed with the field at
    fault, what was found in it and what is allowed, then all are counted. Log time is now: an event_time more than 5
    minutes ahead is malformed. Blank lines are no events. Needs no log and no ClickHouse.

    The contract is docs/events.md; schemas/event.schema.json is its JSON Schema.

    Exit codes: 0 every event is good, 1 some are malformed, 2 usage, or the file can't be read.

    \b
    Examples:
      adledger check events.ndjson
      my-producer --dry-run | adledger check -
      adledger check clicks.ndjson.zst --only click --limit 0
      adledger check events.ndjson --json | jq '.counts[] | select(.field == "ip")'
    """
    from adledger.pipeline.importing.contract import STDIN_NAME, ProblemCounts, check_lines

    path, name = (STDIN, STDIN_NAME) if file == "-" else (Path(file), file)
    kind = 0 if only is None else 1 + list(OnlyEvents).index(only)
    counts, shown, records = ProblemCounts(), list["ContractProblem"](), 0
    with progress_of([Path(name)]) as progress:
        for lines in check_lines(path, name, topic_kind=kind, clock=_now_ms):
            records += lines.records
            for problem in lines.problems:
                counts.add(problem)
                if counts.malformed > limit:
                    continue
                if as_json:
                    shown.append(problem)
                else:
                    out(f"{name}:{problem.line}: {problem.why}")
            progress("checking", lines.bytes_done, lines.bytes_of)
    if as_json:
        out_json(_document(name, records, counts, shown))
    else:
        _print_counts(name, records, counts, limit)
    if counts.malformed:
        raise typer.Exit(1)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _print_counts(name: str, records: int, counts: "ProblemCounts", limit: int) -> None:
    from adledger.schemas.wire import Malformed

    if counts.malformed:
        if 0 < limit < counts.malformed:
            err(f"{counts.malformed - limit:,} more are not printed; --limit {counts.malformed} prints all")
        out_table(
            ("records", "reason", "field", "first line", "allowed"),
            [
                (count, Malformed(kind.reason).name.lower(), kind.field or "-", line, kind.allowed)
                for kind, count, line in counts.ordered()
            ],
        )
    out(f"{name}: {records:,} events, {counts.malformed:,} malformed")


def _document(
    name: str, records: int, counts: "ProblemCounts", shown: "list[ContractProblem]"
) -> dict[str, Any]:
    from adledger.schemas.wire import Malformed

    return {
        "file": name,
        "records": records,
        "malformed": counts.malformed,
        "counts": [
            {"reason": Malformed(kind.reason).name.lower(), "field": kind.field, "records": count, "first_line": line, "allowed": kind.allowed}
            for kind, count, line in counts.ordered()
        ],
        "problems": [
            {
                "line": problem.line, "reason": Malformed(problem.why.reason).name.lower(), "field": problem.why.field,
                "found": problem.why.found, "allowed": problem.why.allowed, "publisher_id": problem.publisher_id,
            }
            for problem in shown
        ],
    }  # fmt: skip
