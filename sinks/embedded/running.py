"""The running queries, each from its receipt until its answer, under its client's id.

The engine assigns its own ids to queries, and does not know an INSERT whose rows are still arriving. So `system.processes`
and KILL QUERY are based on this register. A query's id goes to the engine as its `log_comment`, which leads to the
engine's own figures.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from adledger.sinks.embedded.errors import QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING, ServerError
from adledger.sinks.embedded.sql import processes_reads, quote, replaced

TAG = "log_comment"
"""The setting that carries a query's id into the engine."""


@dataclass(slots=True, eq=False)
class Running:
    """One query. `interrupt` wakes the thread that waits for the query's rows; it may be called from any thread."""

    query_id: str
    sql: bytes
    user: str
    interrupt: Callable[[], None]
    progress: Callable[["Figures"], None]
    gone: Callable[[], bool]
    began: float = field(default_factory=time.monotonic)
    in_engine: bool = False
    killed: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Figures:
    """The progress of a query, in total."""

    read_rows: int = 0
    read_bytes: int = 0
    rows_to_read: int = 0
    written_rows: int = 0
    written_bytes: int = 0


class Register:
    """The running queries. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queries: dict[str, Running] = {}
        self.busy = threading.Event()
        self.asked_to_kill = threading.Event()

    def add(self, query: Running) -> None:
        """Add a query. Raises ServerError where one with the same id runs."""
        with self._lock:
            if query.query_id in self._queries:
                raise ServerError(
                    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                    f"Query with id = {query.query_id} is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)",
                )
            self._queries[query.query_id] = query
        self.busy.set()

    def remove(self, query: Running) -> None:
        """Remove a query: it has been answered, or its client is gone."""
        with self._lock:
            if self._queries.get(query.query_id) is query:
                del self._queries[query.query_id]
            if not self._queries:
                self.busy.clear()
        query.ended.set()

    def all(self) -> list[Running]:
        """Return the running queries."""
        with self._lock:
            return list(self._queries.values())

    def kill(self, query_ids: Iterable[str]) -> list[Running]:
        """Mark queries to be killed; return them. They end soon afterwards: wait for `ended`."""
        with self._lock:
            found = [self._queries[query_id] for query_id in query_ids if query_id in self._queries]
        for query in found:
            query.killed = True
            if not query.in_engine:
                query.interrupt()
        self.asked_to_kill.set()
        return found

    def with_processes(self, sql: bytes, by: Running) -> bytes:
        """Return a query in which this register's view replaces `system.processes`."""
        spans = processes_reads(sql)
        return replaced(sql, spans, self.processes(by)) if spans else sql

    def processes(self, by: Running) -> bytes:
        """Return a table function with the rows of `system.processes`, one for each running query."""
        now = time.monotonic()
        rows = b", ".join(
            b"(%s, %s, %s, %.6f)"
            % (quote(q.query_id.encode()), quote(q.sql), quote(q.user.encode()), now - q.began)
            for q in [by, *(q for q in self.all() if q is not by)]
        )
        return (
            b"view(SELECT p.* REPLACE (s.query_id AS query_id, s.query_id AS initial_query_id, s.query AS query, "
            b"s.user AS user, s.user AS initial_user, s.elapsed AS elapsed, toUInt8(1) AS is_initial_query) "
            b"FROM (SELECT * FROM system.processes) AS p RIGHT JOIN values('query_id String, query String, user String, elapsed Float64', "
            + rows
            + b") AS s ON p.Settings['" + TAG.encode() + b"'] = s.query_id)"
        )  # fmt: skip
