"""The server's own handling of a statement, before the engine runs the rest."""

from dataclasses import dataclass
from itertools import islice

from adledger.sinks.embedded.confined import refuse_files
from adledger.sinks.embedded.engine import Session
from adledger.sinks.embedded.errors import SYNTAX_ERROR, ServerError
from adledger.sinks.embedded.insert_query import InsertStatement, parse_insert
from adledger.sinks.embedded.running import Register, Running
from adledger.sinks.embedded.sql import quote, second_statement, tokens

_WAIT_MODES = {b"SYNC": True, b"ASYNC": False}
_SELECTS = frozenset({b"SELECT", b"WITH", b"FROM", b"("})
_READS = _SELECTS | {b"SHOW", b"DESCRIBE", b"DESC", b"EXPLAIN", b"EXISTS"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The statement for the engine; `reads`: it can't change tables or the session."""

    sql: bytes
    reads: bool


def given_rows(sql: bytes) -> tuple[InsertStatement | None, bytes]:
    """Return an INSERT that expects rows as data, and the rows in the statement itself.

    Every client statement passes through here first. Raises ServerError where it accesses files (`confined`).
    """
    insert = parse_insert(sql)
    refuse_files(sql if insert is None or insert.takes_expressions else sql[: insert.data_at])
    return (insert, sql[insert.data_at :]) if insert else (None, b"")


def prepare(sql: bytes, session: Session, register: Register, by: Running) -> Prepared:
    """Return what the engine must run for a statement other than an INSERT with rows.

    KILL QUERY is executed here, and the engine only runs the SELECT of its result. Raises ServerError.
    """
    second = second_statement(sql)
    if second is not None:
        raise ServerError(
            SYNTAX_ERROR,
            f"Syntax error (Multi-statements are not allowed): failed at position {second + 1}. (SYNTAX_ERROR)",
        )
    words = [token.keyword for token in islice(tokens(sql), 2)]
    if words == [b"KILL", b"QUERY"]:
        return Prepared(_kill(sql, session, register, by), reads=True)
    if words == [b"SHOW", b"PROCESSLIST"]:
        return Prepared(b"SELECT * FROM " + register.processes(by), reads=True)
    first = words[0] if words else b""
    if first in _SELECTS:
        return Prepared(register.with_processes(sql, by), reads=True)
    return Prepared(sql, reads=first in _READS)


def _kill(sql: bytes, session: Session, register: Register, by: Running) -> bytes:
    """Kill the matching queries, wait for their end with SYNC, and return the query for the result."""
    condition, waits, behind = _kill_parts(sql)
    matching = b"SELECT query_id, user, query FROM %s WHERE %s" % (register.processes(by), condition)
    found = session.run(b"SELECT query_id FROM (%s) FORMAT TSVRaw" % matching).bytes().decode().splitlines()
    killed = register.kill(q for q in found if q != by.query_id)
    if waits:
        for query in killed:
            query.ended.wait()
    rows = b", ".join(
        b"('%s', %s, %s, %s)"
        % (
            b"finished" if waits else b"waiting",
            *(quote(t) for t in (q.query_id.encode(), q.user.encode(), q.sql)),
        )
        for q in killed
    )
    columns = b"'kill_status String, query_id String, user String, query String'"
    values = b"values(%s, %s)" % (columns, rows) if rows else b"null(%s)" % columns
    return b"SELECT * FROM %s %s" % (values, behind)


def _kill_parts(sql: bytes) -> tuple[bytes, bool, bytes]:
    """Return a KILL QUERY's condition, whether it waits, and its FORMAT clause."""
    found = [token for token in tokens(sql) if token.keyword != b";"]
    behind = b""
    if len(found) > 4 and found[-2].keyword == b"FORMAT":
        behind = sql[found[-2].start : found[-1].end]
        del found[-2:]
    waits = _WAIT_MODES.get(found[-1].keyword)
    if waits is not None:
        found.pop()
    if len(found) < 4 or found[2].keyword != b"WHERE" or found[-1].keyword == b"TEST":
        raise ServerError(
            SYNTAX_ERROR,
            "Syntax error: only KILL QUERY WHERE condition [SYNC|ASYNC] is supported. (SYNTAX_ERROR)",
        )
    return sql[found[3].start : found[-1].end], bool(waits), behind
