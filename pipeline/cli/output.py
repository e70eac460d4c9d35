"""What a command writes: results to stdout, everything else to stderr.

With `--json` stdout carries exactly one JSON object, so that `adledger ... --json | jq` always works.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from adledger.pipeline.errors import AdledgerError

if TYPE_CHECKING:
    from adledger.pipeline.ledger.totals import LedgerSummary

BROKEN_PIPE_EXIT_CODE = 141
"""128 + SIGPIPE: what a shell reports for a program whose reader closed the pipe (`adledger query ... | head`)."""


def out(text: str) -> None:
    """Write a line to stdout."""
    out_bytes(text.encode() + b"\n")


def out_bytes(data: bytes) -> None:
    """Write bytes to stdout as they are. If the reader has closed the pipe, the command ends quietly."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes stdout again at exit; that must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE_EXIT_CODE) from None


def out_json(value: Mapping[str, Any]) -> None:
    """Write one object, indented, keys as given."""
    import orjson

    out_bytes(
        orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    )


def out_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows in aligned columns, numbers to the right, with commas between thousands."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *texts]) for i in range(len(header))]
    numeric = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))]
    for line in [list(header), *texts]:
        cells = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True)]
        out("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def print_summary(summary: "LedgerSummary") -> None:
    """Print a ledger summary as text."""
    from adledger.pipeline.ledger.totals import class_rows

    out_table(("class", "records", "money", "currency"), class_rows(summary.totals))
    out(f"{summary.totals.records_received:,} records received")
    out(f"conserved: {_yes(summary.conserved)}   continuous: {_yes(summary.continuous)}")
    if summary.events_per_second is not None and summary.cpu_seconds is not None:
        out(f"{summary.events_per_second:,.0f} events/s, {summary.cpu_seconds:.2f} CPU seconds")


def _yes(holds: bool) -> str:  # noqa: FBT001 - a word for a value
    return "yes" if holds else "NO"


def err(text: str) -> None:
    """Write a line to stderr: progress, hints, errors."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def err_error(error: AdledgerError) -> None:
    """Write an error as text: what and where, then the remedy."""
    err(f"adledger: {error}")


def quiet_kafka_client() -> None:
    """Silence aiokafka's log: commands report each error once, with its cause and remedy."""
    import logging

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
