"""chDB as the server uses it: one engine on a folder, and sessions that each run one query at a time.

Sessions of one engine run concurrently; chDB releases the GIL while a query runs.

Rows of an INSERT reach the engine as a file in memory (`INSERT ... FROM INFILE`), never through chDB's `send_insert`,
which answers OK even where the table refused the rows (a violated constraint, verified with 26.9).
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, Self

from chdb import _chdb

from adledger.sinks.embedded.blocks import Columns
from adledger.sinks.embedded.confined import refuse_settings
from adledger.sinks.embedded.errors import UNKNOWN_SETTING, ServerError
from adledger.sinks.embedded.insert_query import InsertStatement
from adledger.sinks.embedded.sql import quote, quote_name

DATA = "data"
CONFIG = "engine.xml"
NOT_STREAMED = "Streaming query is not supported for query"

SESSION_SETTINGS = {"implicit_select": "0"}
"""Settings whose defaults in chDB differ from clickhouse-server's."""


DESCRIBED_MAX = 64
"""INSERTs whose columns a session remembers."""

_SETTING_NAME = re.compile(r"[A-Za-z_]\w*")

INSERT_SETTINGS = {"max_threads": "1"}
"""Threads of an INSERT with rows, unless its client sets them: more threads cost a small one a quarter of its CPU."""


class Engine:
    """The engine on the folder `directory`, which becomes the process's working directory.

    chDB's connection string would misread a path with `?` or `&` in it, so it gets relative paths.
    """

    def __init__(self, directory: Path) -> None:
        os.chdir(directory)
        shutil.copyfile(str(files("adledger.sinks.embedded") / CONFIG), CONFIG)
        self.schema_version = 0
        self._keeps_open = Session(self)
        self._own_default_database()
        version, timezone = bytes(self._keeps_open.run(b"SELECT version(), timezone()", "TSV").bytes()).split(
            b"\t"
        )
        major, minor, patch = version.split(b".")[:3]
        self.version = int(major), int(minor), int(patch)
        self.timezone = timezone.strip()

    def _own_default_database(self) -> None:
        """Replace chDB's `default` database, in which every unknown table is a file name, with an ordinary one.

        chDB forgets the id of a database without tables: such a one is recreated with the same id.
        """
        run = self._keeps_open.run
        run(b"DETACH DATABASE default")
        kept = Path(DATA, "metadata", "default.sql")
        if not kept.exists():
            run(b"CREATE DATABASE default ENGINE = Atomic")
        else:
            try:
                run(b"ATTACH DATABASE default")
            except ServerError:
                create = kept.read_bytes().replace(b"ATTACH DATABASE _", b"CREATE DATABASE default", 1)
                kept.unlink()
                run(create)
        run(b"USE default")

    def session(self, database: bytes = b"") -> "Session":
        """Return a new session. Raises ServerError where the database does not exist."""
        session = Session(self)
        if database:
            try:
                session.run(b"USE " + quote_name(database))
            except ServerError:
                session.close()
                raise
        return session

    def close(self) -> None:
        """Close the engine. Every session must have been closed."""
        self._keeps_open.close()


class Session:
    """One connection to the engine, used by one thread at a time. Every method raises ServerError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._described: dict[InsertStatement, tuple[int, Columns]] = {}
        try:
            self._chdb = _chdb.connect(  # type: ignore[attr-defined]
                f"{DATA}?config-file={CONFIG}"
            )
        except RuntimeError as e:
            raise ServerError.stated(str(e)) from None
        self._applied: dict[str, str] = {}
        self.configure({})

    def close(self) -> None:
        """Close it; not while a query runs."""
        self._chdb.close()

    def configure(self, settings: Mapping[str, str], required: frozenset[str] = frozenset()) -> None:
        """Apply these settings to the following queries. Unknown ones are ignored unless `required`."""
        refuse_settings(settings)
        wanted = {**SESSION_SETTINGS, **settings}
        for name in wanted:
            if not _SETTING_NAME.fullmatch(name):
                raise ServerError(UNKNOWN_SETTING, f"Unknown setting '{name}'. (UNKNOWN_SETTING)")
        changes = dict.fromkeys(self._applied.keys() - wanted.keys(), "DEFAULT")
        changes |= {
            name: quote(value.encode()).decode()
            for name, value in wanted.items()
            if self._applied.get(name) != value
        }
        if not changes:
            return
        self._applied |= wanted  # first, so that the next call can undo them even after an error
        try:
            self._set(changes)
        except ServerError as e:
            if e.code != UNKNOWN_SETTING:
                raise
            for name, value in changes.items():
                self._set_if_known(name, value, required)
        self._applied = wanted

    def run(
        self,
        sql: bytes,
        output_format: str = "Native",
        parameters: Mapping[str, str] | None = None,
        *,
        reads: bool = True,
    ) -> Any:
        """Return the whole result of a statement, chDB's query_result, in the given format.

        A statement that is not marked as read-only makes every session forget its known columns.
        """
        if reads:
            return self._run(sql, output_format, parameters)
        self._engine.schema_version += 1
        try:
            return self._run(sql, output_format, parameters)
        finally:
            self._engine.schema_version += 1

    def stream(self, sql: bytes) -> Generator[Any] | None:
        """Return the blocks of a SELECT's result, each in Native format; None for other statements, not run."""
        try:
            handle = self._chdb.send_query(sql, "Native")
        except RuntimeError as e:
            if NOT_STREAMED in str(e):
                return None
            raise ServerError.stated(str(e)) from None
        return self._blocks(handle)

    def columns(self, insert: InsertStatement) -> Columns:
        """Return the names and types of the columns that rows of an INSERT must have.

        They are cached until the next statement of any session that may change tables.
        """
        version = self._engine.schema_version
        known_at, columns = self._described.get(insert, (-1, ()))
        if known_at != version:
            columns = self.described(insert.describe())
            if len(self._described) >= DESCRIBED_MAX:
                self._described.clear()
            self._described[insert] = version, columns
        return columns

    def described(self, describe: bytes) -> Columns:
        """Return the names and types that a DESCRIBE statement returns."""
        rows = map(json.loads, self.run(describe, "JSONCompactEachRow").bytes().splitlines())
        return tuple((name.encode(), type_name.encode()) for name, type_name, *_ in rows)

    def insert(self, insert: InsertStatement, rows: "RowsFile", input_format: bytes = b"Native") -> int:
        """Insert the rows of a file; return their number."""
        return int(self.run(insert.from_file(rows.path, input_format)).rows_written())

    def _blocks(self, handle: Any) -> Generator[Any]:
        ended = False
        try:
            while True:
                block = self._chdb.streaming_fetch_result(handle)
                if block.rows_read() == 0:
                    ended = True
                    return
                yield block
        except RuntimeError as e:
            ended = True
            raise ServerError.stated(str(e)) from None
        finally:
            if not ended:
                self._chdb.streaming_cancel_query(handle)

    def _run(self, sql: bytes, output_format: str, parameters: Mapping[str, str] | None) -> Any:
        try:
            return self._chdb.query(sql, output_format, params=dict(parameters or {}))
        except RuntimeError as e:
            raise ServerError.stated(str(e)) from None

    def _set(self, changes: Mapping[str, str]) -> None:
        self.run(b"SET " + ", ".join(f"{name} = {value}" for name, value in changes.items()).encode())

    def _set_if_known(self, name: str, value: str, required: frozenset[str]) -> None:
        try:
            self._set({name: value})
        except ServerError as e:
            if e.code != UNKNOWN_SETTING or name in required:
                raise


class RowsFile:
    """Rows for the engine: a file in memory where the system supports that, else a temporary file."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._file: BinaryIO = os.fdopen(os.memfd_create("rows"), "wb", buffering=0)
            self.path = f"/proc/self/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile(buffering=0)  # type: ignore[assignment]  # noqa: SIM115 - closed by __exit__
            self.path = self._file.name
        self.size = 0

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        while view:
            view = view[self._file.write(view) :]

    def read(self) -> bytes:
        """Return everything that was appended."""
        return Path(self.path).read_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
