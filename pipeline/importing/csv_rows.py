"""Rows of a CSV whose first line names the columns, quoted or not."""

import csv
from collections.abc import Sequence

from adledger.pipeline.errors import UsageError


class CsvRows:
    """Reads a header, then rows by name; unknown columns are ignored."""

    def __init__(self, what: str, columns: Sequence[str]) -> None:
        """Name the data set, and the columns that its header must have, in any order."""
        self._what, self._columns = what, columns
        self.names: list[str] = []

    def read_header(self, line: bytes) -> None:
        """Read the column names. Raises UsageError with the missing ones and the header found."""
        text = line.decode(errors="replace")
        try:
            names = [name.strip() for name in _split(text)]
        except csv.Error:
            names = []
        missing = [name for name in self._columns if name not in names]
        repeated = sorted({name for name in self._columns if names.count(name) > 1})
        if missing or repeated:
            why = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(repeated)} twice"
            raise UsageError(
                f"this is not {self._what} data: its header {why}\n  found: {text[:200]}",
                remedy=f"Name a file whose first line has the columns {', '.join(self._columns)}, separated by commas.",
            )
        self.names = names

    def row(self, line: bytes) -> dict[str, str]:
        """Return a row's fields by name. Raises ValueError, csv.Error."""
        fields = _split(line.decode())
        if len(fields) != len(self.names):
            raise ValueError(f"{len(fields)} fields, not the header's {len(self.names)}")
        return dict(zip(self.names, fields, strict=True))


def _split(text: str) -> list[str]:
    return next(csv.reader([text], strict=True)) if '"' in text else text.split(",")
