"""Log lines: one line a record, `ts=... level=... logger=... msg="..."` or JSON with the same keys, to stderr or a file."""

import json
import logging
import sys
from collections.abc import Mapping
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
    """Formats a record as one line of logfmt; breaks in its text are escaped, and a traceback is part of the text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        parts = self._parts(record)
        return " ".join(f"{k}={json.dumps(v) if k == 'msg' else v}" for k, v in parts.items())

    def _parts(self, record: logging.LogRecord) -> dict[str, str]:
        """Return what a line says, by key."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return {
            "ts": at.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name, "msg": text.strip(),
        }  # fmt: skip


class OneObject(OneLine):
    """Formats a record as one JSON object with the same keys, in ASCII: it parses wherever the line goes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(self._parts(record))


FORMATS: Mapping[str, type[OneLine]] = {"logfmt": OneLine, "json": OneObject}
"""Formatters by the setting `log_format`."""


def log_event(event: Event) -> None:
    """Log an event that has a line."""
    if line := event.line:
        WORKER.log(event.level, "%s", line)


def set_up(level: str, file: Path | None, log_format: str) -> None:
    """Send every log line to stderr, or to the end of a file, in one of FORMATS. Raises UsageError."""
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
    handler.setFormatter(FORMATS[log_format]())
    handler.addFilter(lambda record: record.msg not in NORMAL)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(number if number <= logging.DEBUG else max(number, OTHERS_LEVEL))
    logging.getLogger(OURS).setLevel(number)
