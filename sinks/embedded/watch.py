"""The thread that watches queries in the engine: kills those marked for it, and sends progress to clients.

It sleeps while nothing runs. A query that takes less than a tick is never checked.
"""

import json
import os
import sys
import threading
import time
import traceback

from adledger.sinks.embedded.engine import Session
from adledger.sinks.embedded.errors import ServerError
from adledger.sinks.embedded.running import TAG, Figures, Register, Running
from adledger.sinks.embedded.sql import quote

TICK_SECONDS = 0.1
CRASHED_EXIT_CODE = 70

_FIGURES = (
    f"SELECT Settings['{TAG}'], read_rows, read_bytes, total_rows_approx, written_rows, written_bytes "  # noqa: S608
    "FROM system.processes FORMAT JSONCompactEachRow"
).encode()


class QueryWatch(threading.Thread):
    """Watches the queries of a register, with its own session."""

    def __init__(self, register: Register, session: Session) -> None:
        super().__init__(name="watch", daemon=True)
        self._register = register
        self._session = session
        self._stopping = False

    def run(self) -> None:
        """Tick while queries run, until `stop`.

        An error that the engine did not report ends the process: without this thread nothing could be killed.
        """
        try:
            while not self._stopping:
                self._register.busy.wait()
                self._register.asked_to_kill.wait(TICK_SECONDS)
                self._register.asked_to_kill.clear()
                self._tick()
        except BaseException:  # noqa: BLE001 - printed, and the process ends
            traceback.print_exc()
            os._exit(CRASHED_EXIT_CODE)
        self._session.close()

    def stop(self) -> None:
        """End the thread; return when it has ended."""
        self._stopping = True
        self._register.busy.set()
        self._register.asked_to_kill.set()
        self.join()

    def _tick(self) -> None:
        late = time.monotonic() - TICK_SECONDS
        looked_at = [q for q in self._register.all() if q.in_engine and (q.killed or q.began < late)]
        if not looked_at:
            return
        try:
            for query in looked_at:
                if query.killed or query.gone():
                    query.killed = True
                    self._kill(query)
            figures = self._figures()
        except ServerError as e:  # short of memory, say: the next tick tries again
            print(f"embedded ClickHouse: watching queries: {e}", file=sys.stderr)  # noqa: T201
            return
        for query in looked_at:
            query.progress(figures.get(query.query_id, Figures()))

    def _kill(self, query: Running) -> None:
        """Tell the engine to kill a query; the next tick handles one that is not in the engine yet, or no longer."""
        where = b"Settings['%s'] = %s" % (TAG.encode(), quote(query.query_id.encode()))
        self._session.run(b"KILL QUERY WHERE " + where + b" ASYNC")

    def _figures(self) -> dict[str, Figures]:
        rows = map(json.loads, bytes(self._session.run(_FIGURES).bytes()).splitlines())
        return {query_id: Figures(*map(int, figures)) for query_id, *figures in rows}
