"""INSERT statements whose rows come as data: the target, its columns, and the same statement with a file."""

from dataclasses import dataclass

from adledger.sinks.embedded.sql import Token, quote, tokens

_BEFORE_ROWS = frozenset({b"VALUES", b"FORMAT"})
_BEFORE_QUERY = frozenset({b"SELECT", b"WITH", b"FROM", b"WATCH", b"PARTITION"})


@dataclass(frozen=True, slots=True)
class InsertStatement:
    """An INSERT whose rows come as data: after it in the same text, or separately.

    `head` ends before SETTINGS, VALUES or FORMAT; `source` is the FROM of a SELECT of the same columns;
    `data_at` is where data in the text begins.
    """

    head: bytes
    source: bytes
    columns: bytes
    settings: bytes
    format: bytes
    data_at: int

    @property
    def takes_expressions(self) -> bool:
        """Whether rows may call functions: those of VALUES may."""
        return self.format.strip(b'`"').lower() == b"values"

    def from_file(self, path: str, input_format: bytes) -> bytes:
        """Return the statement that inserts the rows of a file."""
        where = quote(path.encode())
        return b"%s FROM INFILE %s COMPRESSION 'none' %s FORMAT %s" % (
            self.head, where, self.settings, input_format,
        )  # fmt: skip

    def describe(self) -> bytes:
        """Return the query for the names and types of the columns that the rows must have."""
        return b"DESCRIBE TABLE (SELECT %s FROM %s)" % (self.columns, self.source)


def parse_insert(sql: bytes) -> InsertStatement | None:
    """Return an INSERT that expects rows as data, None for every other statement."""
    until_rows = _until_rows(sql)
    if until_rows is None:
        return None
    *stated, last = until_rows
    parts = _insert_parts(stated)
    if parts is None:
        return None
    target, columns, head_end, settings_at = parts
    row_format, data_at = b"Values", last.end
    if last.keyword == b"FORMAT":
        named = next(tokens(sql[last.end :]), None)
        if named is None:
            return None
        row_format, data_at = named.text, last.end + named.end
    return InsertStatement(
        head=sql[:head_end],
        source=sql[slice(*target)],
        columns=sql[slice(*columns)] if columns else b"*",
        settings=sql[settings_at : last.start] if settings_at else b"",
        format=row_format,
        data_at=data_at,
    )


def _until_rows(sql: bytes) -> list[Token] | None:
    """Return an INSERT's tokens up to VALUES or FORMAT, None for other statements."""
    found: list[Token] = []
    depth = 0
    for token in tokens(sql):
        keyword = token.keyword
        if not found and keyword != b"INSERT":
            return None
        if depth == 0 and keyword in _BEFORE_QUERY:
            return None
        found.append(token)
        if depth == 0 and keyword in _BEFORE_ROWS:
            return found
        depth += (keyword == b"(") - (keyword == b")")
    return None


def _insert_parts(
    stated: list[Token],
) -> tuple[tuple[int, int], tuple[int, int] | None, int, int | None] | None:
    """Return where target, columns, the end of both, and SETTINGS are; None where rows come from a SELECT."""
    at = 1
    is_function = False
    while at < len(stated) and stated[at].keyword in (b"INTO", b"TABLE", b"FUNCTION"):
        is_function |= stated[at].keyword == b"FUNCTION"
        at += 1
    target_at = at
    groups = [(i, _closing(stated, i)) for i in _openings(stated, at)]
    settings = next((i for i in range(at, len(stated)) if stated[i].keyword == b"SETTINGS"), len(stated))
    groups = [group for group in groups if group[0] < settings]
    if len(groups) > 1 + is_function or target_at >= settings or (is_function and not groups):
        return None
    own = groups[is_function:]
    target_end = own[0][0] if own else settings
    columns = None
    if own:
        first, last = own[0]
        if first + 1 >= last or stated[first + 1].keyword in _BEFORE_QUERY:
            return None
        columns = (stated[first].end, stated[last].start)
    return (
        (stated[target_at].start, stated[target_end - 1].end),
        columns,
        stated[settings - 1].end,
        stated[settings].start if settings < len(stated) else None,
    )


def _openings(stated: list[Token], at: int) -> list[int]:
    """Return where the outermost parentheses open."""
    found, depth = [], 0
    for i in range(at, len(stated)):
        if stated[i].keyword == b"(":
            if depth == 0:
                found.append(i)
            depth += 1
        elif stated[i].keyword == b")":
            depth -= 1
    return found


def _closing(stated: list[Token], at: int) -> int:
    """Return where the parenthesis that opens at `at` closes."""
    depth = 0
    for i in range(at, len(stated)):
        depth += (stated[i].keyword == b"(") - (stated[i].keyword == b")")
        if depth == 0:
            return i
    return len(stated) - 1
