"""Keeps clients of the embedded server away from the files, processes and networks of its machine.

Grants (engine.xml) refuse everything that needs a privilege in ClickHouse: table functions and engines for files, URLs,
object stores and other servers, dictionaries, named collections, SYSTEM SHUTDOWN. Four things need no privilege, since
chDB runs as clickhouse-local: the function `file`, INTO OUTFILE and FROM INFILE (which belong to the client there), disks
defined in a statement, and formats that read a template or a schema from a path. This module refuses those.
"""

import re
from collections.abc import Iterable

from adledger.sinks.embedded.errors import ACCESS_DENIED, ServerError
from adledger.sinks.embedded.sql import Token, tokens

FUNCTIONS = frozenset({b"file", b"disk"})
CLAUSES = frozenset({(b"INTO", b"OUTFILE"), (b"FROM", b"INFILE")})
SETTINGS = ("format_schema", "format_template_")
"""Prefixes of settings that name a file."""

_WORTH_A_LOOK = re.compile(rb"file|disk|format_schema|format_template_|\\[^`\"]*[`\"]\s*[(,)]", re.IGNORECASE)


def refuse_files(text: bytes) -> None:
    """Raise ServerError where a statement, or rows of VALUES, access a file of the server's machine."""
    if not _WORTH_A_LOOK.search(text):
        return
    found = list(tokens(text))
    for i, token in enumerate(found):
        behind = found[i + 1] if i + 1 < len(found) else None
        if _called(token, found[max(0, i - 2) : i], behind):
            raise _denied(f"{token.text.decode('utf-8', 'replace')}(...)")
        if behind is not None and (token.keyword, behind.keyword) in CLAUSES:
            raise _denied(f"{token.keyword.decode()} {behind.keyword.decode()}")
        if token.kind in ("word", "quoted"):
            refuse_settings([token.text.strip(b'`"').decode("utf-8", "replace")])


def refuse_settings(names: Iterable[str]) -> None:
    """Raise ServerError where one of these settings would make a format read a file."""
    for name in names:
        if name.lower().startswith(SETTINGS):
            raise _denied(name)


def _called(token: Token, before: list[Token], behind: Token | None) -> bool:
    """Whether a token calls one of the functions, with parentheses or APPLY; a name with an escape might be any of them."""
    if token.kind not in ("word", "quoted"):
        return False
    name = token.text.strip(b'`"')
    if name not in FUNCTIONS and not (token.kind == "quoted" and b"\\" in name):
        return False
    applied = any(t.keyword == b"APPLY" for t in before)
    return applied or (behind is not None and behind.keyword == b"(")


def _denied(what: str) -> ServerError:
    return ServerError(
        ACCESS_DENIED,
        f"{what}: the embedded server accesses no file, process or network of its machine; send data with the "
        "statement, and read results from its answer. (ACCESS_DENIED)",
    )
