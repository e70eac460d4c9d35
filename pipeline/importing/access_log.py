"""Web servers' access logs: each hit is an impression, keyed by its address. The line format is detected, or given."""

import re
from collections.abc import Callable, Sequence

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.access_hits import HitReader, hit_record
from adledger.pipeline.importing.access_lines import Combined, NamedFields
from adledger.pipeline.importing.access_named import Alb, CloudFront, JsonHits
from adledger.pipeline.importing.line_layout import CLIENT, TIMES, compiled
from adledger.pipeline.importing.records import ParsedRecord, unreadable

ID_PREFIX = "al"
DETECTION_LINES_MAX = 1_000
"""The first lines from which the line format is detected."""

_Make = Callable[[str | None], HitReader]

STYLES: tuple[tuple[re.Pattern[bytes], _Make], ...] = (
    (re.compile(rb"\S+ \S+ \S+ \["), lambda _: Combined()),
    (re.compile(rb"[\w.-]+:\d+ "), lambda _: Combined(vhost=True)),
    (re.compile(rb"\s*\{"), JsonHits),
    (re.compile(rb"#(Version|Fields):"), lambda _: CloudFront()),
    (re.compile(rb"(http|https|h2|grpcs|ws|wss) \d{4}-"), lambda _: Alb()),
)
"""The known line formats, and how a line of each begins; if two read equally many lines, the first is used."""


class AccessLog:
    """Reads one log. Its first lines decide its line format, unless `line_format` is given."""

    def __init__(
        self, id_prefix: str = ID_PREFIX, *, line_format: str | None = None, client_field: str | None = None
    ) -> None:
        """Raise UsageError for a line format that can't be parsed, or lacks the client or the time."""
        self._id_prefix = id_prefix
        self._client_field = client_field
        self._reader: HitReader | None = (
            None if line_format is None else _named_fields(line_format, client_field)
        )

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return a record for each line that is not blank; event ids count the file's lines."""
        if self._reader is None:
            self._reader = self._detect(lines)
        records: list[ParsedRecord] = []
        for number, line in enumerate(lines, first_line):
            if not line or line.isspace():
                continue
            try:
                hit = self._reader.read(line.decode())
            except ValueError as error:  # also not UTF-8, not JSON
                records.append(unreadable(line, number, error))
                continue
            if hit is not None:
                records.append(hit_record(hit, f"{self._id_prefix}-{number}", number))
        return records

    def _detect(self, lines: Sequence[bytes]) -> HitReader:
        if self._client_field is not None:
            return JsonHits(self._client_field)  # the only style whose fields have arbitrary names
        first = next((line for line in lines if line.strip()), b"")
        # If none reads a line, the style that the first line begins like has the most useful errors.
        _, best = max(
            STYLES, key=lambda style: (_lines_read(style[1](None), lines), style[0].match(first) is not None)
        )
        return best(None)


def _lines_read(reader: HitReader, lines: Sequence[bytes]) -> int:
    count = 0
    for line in lines[:DETECTION_LINES_MAX]:
        try:
            count += reader.read(line.decode()) is not None
        except ValueError:
            continue
    return count


def _named_fields(line_format: str, client_field: str | None) -> NamedFields:
    layout = compiled(line_format)
    client = client_field or CLIENT
    if client not in layout.fields:
        raise UsageError(
            f"--line-format {line_format!r} has no field ${client} for the client's address",
            remedy=f"Its fields are {', '.join(sorted(layout.fields))}: name the client's with --client-field.",
        )
    if not layout.fields.intersection(TIMES):
        raise UsageError(
            f"--line-format {line_format!r} has no time",
            remedy="It needs one of $time_local, $time_iso8601 and $msec, or Apache's %t.",
        )
    return NamedFields(layout, client_field)
