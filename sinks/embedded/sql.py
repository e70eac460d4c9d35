"""The part of ClickHouse's SQL that the server must parse before its engine does.

That is where a statement ends, which FORMAT it requests, and where it reads `system.processes`. Statements are bytes,
because an INSERT may carry any.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""
    (?P<space> \s+ | --[^\n]* | \#[ !][^\n]* | /\*.*?\*/ )
    | (?P<text> '(?:[^'\\]|\\.|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<word> [A-Za-z_][\w$]* )
    | (?P<quoted> `(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*" )
    | (?P<number> \d[\w.]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a literal or one other character of a statement, from `start` to `end`."""

    kind: str
    text: bytes
    start: int
    end: int

    @property
    def keyword(self) -> bytes:
        """The word in capitals; the character itself where it is not a word."""
        return self.text.upper() if self.kind == "word" else self.text if self.kind == "other" else b""


def tokens(sql: bytes) -> Iterator[Token]:
    """Yield the tokens of a statement lazily, without spaces and comments."""
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or ""
        if kind != "space":
            yield Token(kind, match.group(), match.start(), match.end())


def quote(text: bytes) -> bytes:
    """Return a string literal."""
    return b"'" + text.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


def quote_name(name: bytes) -> bytes:
    """Return an identifier in quotes."""
    return b"`" + name.replace(b"\\", b"\\\\").replace(b"`", b"\\`") + b"`"


def second_statement(sql: bytes) -> int | None:
    """Return where a second statement begins, or None."""
    ended = False
    for token in tokens(sql):
        if token.keyword == b";":
            ended = True
        elif ended:
            return token.start
    return None


def format_clause(sql: bytes) -> tuple[int, Token] | None:
    """Return where a query's FORMAT clause begins, and the format's name; None without such a clause."""
    found = [token for token in tokens(sql) if token.keyword != b";"]
    for i in range(len(found) - 2, -1, -1):
        if found[i].keyword == b"FORMAT":
            ends = i + 2 == len(found) or found[i + 2].keyword == b"SETTINGS"
            return (
                (found[i].start, found[i + 1]) if ends and found[i + 1].kind in ("word", "quoted") else None
            )
    return None


def without_format(sql: bytes) -> bytes:
    """Return a query without its FORMAT clause and a semicolon after it."""
    clause = format_clause(sql)
    if clause is not None:
        start, name = clause
        sql = sql[:start] + sql[name.end :]
    return sql.rstrip().removesuffix(b";")


def processes_reads(sql: bytes) -> list[tuple[int, int]]:
    """Return where a query reads `system.processes`."""
    if b"processes" not in sql:
        return []
    found = list(tokens(sql))
    return [
        (found[i].start, found[i + 2].end)
        for i in range(len(found) - 2)
        if [_name(t) for t in found[i : i + 3]] == [b"system", b".", b"processes"]
    ]


def _name(token: Token) -> bytes:
    return token.text.strip(b'`"') if token.kind == "quoted" else token.text


def replaced(sql: bytes, spans: list[tuple[int, int]], by: bytes) -> bytes:
    """Return the text with every span (ascending) replaced."""
    parts, at = [], 0
    for start, end in spans:
        parts += [sql[at:start], by]
        at = end
    return b"".join([*parts, sql[at:]])
