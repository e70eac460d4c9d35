"""Log lines: one line a record, `ts=... level=... logger=... msg="..."`, to stderr or a file."""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from adledger.pipeline.errors import UsageError
from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.log.kafka_admin.rate_limited_log import NORMAL

LEVELS = ("CRIT", "ERROR", "WARN", "INFO", "DEBUG")
"""Faust's names for levels, which `--loglevel` takes in any case."""

OURS = "adledger"
APP = logging.getLogger(f"{OURS}.app")
WORKER = logging.getLogger(f"{OURS}.worker")

OTHERS_LEVEL = logging.WARNING
"""Libraries' records below this level are for debugging them: they are logged at level DEBUG only."""


class OneLine(logging.Formatter):
    """Formats a record as one line; breaks in its text are escaped, and a traceback is part of the text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        message = json.dumps(text.strip())
        return f"ts={at.replace('+00:00', 'Z')} level={record.levelname.lower()} logger={record.name} msg={message}"


def log_event(event: Event) -> None:
    """Log an event that has a line."""
    if line := event.line:
        WORKER.log(event.level, "%s", line)


def set_up(level: str, file: Path | None) -> None:
    """Send every log line to stderr, or to the end of a file. Raises UsageError."""
    number = {**logging.getLevelNamesMapping(), "CRIT": logging.CRITICAL}.get(level.upper())
    if number is None:
        raise UsageError(f"--loglevel {level} is not a level", remedy=f"use one of {', '.join(LEVELS)}")
    handler: logging.Handler
    try:
        handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    except OSError as error:
        raise UsageError(
            f"the log file {file} can't be written: {error.strerror}", remedy="name another with --logfile"
        ) from None
    handler.setFormatter(OneLine())
    handler.addFilter(lambda record: record.msg not in NORMAL)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(number if number <= logging.DEBUG else max(number, OTHERS_LEVEL))
    logging.getLogger(OURS).setLevel(number)
