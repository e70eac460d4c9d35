"""One query of the native protocol, from its packet to its answer.

An INSERT reaches the engine once all its rows have arrived, as one insert: a client that goes away earlier has inserted
nothing.
"""

import uuid
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from adledger.sinks.embedded import packets
from adledger.sinks.embedded.blocks import Block, block_rows, split_blocks, walk_block
from adledger.sinks.embedded.buffers import Disconnected, Inbound
from adledger.sinks.embedded.columns import walker
from adledger.sinks.embedded.compression import LZ4, ZSTD, FrameInbound
from adledger.sinks.embedded.engine import INSERT_SETTINGS, RowsFile, Session
from adledger.sinks.embedded.errors import (
    QUERY_WAS_CANCELLED,
    QUERY_WAS_CANCELLED_BY_CLIENT,
    ServerError,
)
from adledger.sinks.embedded.insert_query import InsertStatement
from adledger.sinks.embedded.native_connection import NativeConnection
from adledger.sinks.embedded.packets import Query
from adledger.sinks.embedded.running import TAG, Figures, Running
from adledger.sinks.embedded.sql import quote_name, without_format
from adledger.sinks.embedded.statements import Prepared, given_rows, prepare

CANCELLED = ServerError(QUERY_WAS_CANCELLED, "Query was cancelled. (QUERY_WAS_CANCELLED)")
CANCELLED_BY_CLIENT = ServerError(
    QUERY_WAS_CANCELLED_BY_CLIENT, "Query was cancelled by the client. (QUERY_WAS_CANCELLED_BY_CLIENT)"
)


def answer(client: NativeConnection, query: Query) -> None:
    """Run a query whose packet was read, and send its whole answer."""
    client.inbound.release()
    client.cancelled = False
    running = Running(
        query.query_id or str(uuid.uuid4()),
        query.sql,
        client.user,
        interrupt=client.interrupt,
        progress=lambda figures: client.progress(running, figures),
        gone=client.gone,
    )
    work = _Query(client, query, running)
    try:
        tables = work.external_tables()
        client.register.add(running)
        try:
            work.run(tables)
        finally:
            client.register.remove(running)
    except ServerError as e:
        cancelled_read = client.cancelled and e.code == QUERY_WAS_CANCELLED
        client.send(packets.END_OF_STREAM if cancelled_read else packets.exception(e))
    else:
        client.send(packets.END_OF_STREAM)


class _Query:
    """A query in progress."""

    def __init__(self, client: NativeConnection, query: Query, running: Running) -> None:
        assert client.session is not None
        self._client = client
        self._session: Session = client.session
        self._query = query
        self._running = running
        self._blocks: Inbound = FrameInbound(client.inbound) if query.compressed else client.inbound
        method = query.settings.get("network_compression_method", "LZ4").upper()
        self._compression = (ZSTD if method == "ZSTD" else LZ4) if query.compressed else None

    def external_tables(self) -> list[tuple[bytes, Block, RowsFile]]:
        """Read the external tables that a client may send with any query."""
        found = []
        for name, block in self._receive():
            rows = RowsFile()
            self._keep(block, rows)
            found.append((name, block, rows))
        return found

    def run(self, tables: list[tuple[bytes, Block, RowsFile]]) -> None:
        """Run the query and send its result, except the packet that ends it."""
        insert, inline = given_rows(self._query.sql)
        settings = {
            **(INSERT_SETTINGS if insert else {}),
            **self._query.settings,
            TAG: self._running.query_id,
        }
        self._session.configure(settings, self._query.required)
        with self._temporary(tables):
            if insert is None:
                self._result(prepare(self._query.sql, self._session, self._client.register, self._running))
            elif inline.strip(b" \t\r\n;"):
                with self._engine():
                    self._session.run(self._query.sql)
            else:
                self._insert(insert)

    def _result(self, prepared: Prepared) -> None:
        sql = without_format(prepared.sql)
        with self._engine():
            blocks = self._session.stream(sql)
            if blocks is not None:
                self._stream(sql, blocks)
                return
            found = split_blocks(self._session.run(sql, reads=prepared.reads).bytes())
        for i, (columns, block) in enumerate(found):
            if i == 0:
                self._send(packets.sample_block(columns))
            self._send(block)

    def _stream(self, sql: bytes, blocks: Generator[Any]) -> None:
        """Send a SELECT's result as it comes: a block without rows first, from which clients learn the columns."""
        count = rows = size = read_rows = read_bytes = 0
        with closing(blocks):
            for block in blocks:
                data = block.bytes()
                assert block_rows(data) == block.rows_read(), "the engine gave several blocks as one"
                if count == 0:
                    self._head(data)
                self._send(data)
                count, rows, size = count + 1, rows + block.rows_read(), size + len(data)
                read_rows += block.storage_rows_read()
                read_bytes += block.storage_bytes_read()
                if self._running.killed:
                    raise CANCELLED
        if count == 0:
            with suppress(ServerError):  # of SELECTs that can't be a subquery
                self._send(packets.sample_block(self._session.described(b"DESCRIBE TABLE (%s)" % sql)))
        self._running.progress(Figures(read_rows=read_rows, read_bytes=read_bytes))
        self._client.send(packets.profile(rows, count, size))

    def _head(self, block: bytes) -> None:
        """Send the columns of a result's first block, where its types can be walked over."""
        with suppress(ServerError):
            ((columns, _),) = split_blocks(block)
            self._send(packets.sample_block(columns))

    def _insert(self, insert: InsertStatement) -> None:
        columns = self._session.columns(insert)
        for _, type_name in columns:
            walker(
                type_name.decode("utf-8", "replace")
            )  # refuses columns that can't be received, before the client sends them
        self._send(packets.sample_block(columns))
        with RowsFile() as rows:
            for _, block in self._receive():
                self._keep(block, rows)
            if rows.size:
                with self._engine():
                    written = self._session.insert(insert, rows)
                    self._running.progress(Figures(written_rows=written, written_bytes=rows.size))

    def _receive(self) -> Iterator[tuple[bytes, Block]]:
        """Yield (table, block) of the data packets that come, up to the empty block that ends them."""
        while True:
            try:
                name, block = self._data_packet()
            except Disconnected:
                if self._running.killed:
                    self._client.send(packets.exception(CANCELLED))
                raise
            if block.is_end:
                self._blocks.release()
                return
            yield name, block

    def _data_packet(self) -> tuple[bytes, Block]:
        kind = self._client.inbound.varint()
        if kind == packets.CANCEL:
            raise CANCELLED_BY_CLIENT
        if kind != packets.DATA:
            raise Disconnected(f"unexpected packet {kind} among data")
        name = self._client.inbound.string()
        try:
            return name, walk_block(self._blocks)
        except ServerError as e:  # of a type that can't be stepped over: everything after it is unreadable
            self._client.send(packets.exception(e))
            raise Disconnected("unreadable data") from None

    def _keep(self, block: Block, rows: RowsFile) -> None:
        if block.rows:
            with self._blocks.since(block.mark) as data:
                rows.append(data)
        self._blocks.release()

    def _send(self, block: bytes) -> None:
        self._client.send_block(block, self._compression)

    @contextmanager
    def _engine(self) -> Iterator[None]:
        """Mark the time in which the engine works: the query can be killed then, and the client gets progress."""
        self._running.in_engine = True
        try:
            if self._running.killed:
                raise CANCELLED
            yield
        finally:
            self._client.leave_engine(self._running)

    @contextmanager
    def _temporary(self, tables: list[tuple[bytes, Block, RowsFile]]) -> Iterator[None]:
        """Create the client's external tables for the duration of the query."""
        made = []
        try:
            for name, block, rows in tables:
                table = quote_name(name)
                columns = b", ".join(quote_name(n) + b" " + t for n, t in block.columns)
                self._session.run(b"CREATE TEMPORARY TABLE IF NOT EXISTS %s (%s)" % (table, columns))
                made.append(table)
                with rows:
                    if rows.size:
                        self._session.insert(
                            InsertStatement(b"INSERT INTO " + table, table, b"*", b"", b"Native", 0), rows
                        )
            yield
        finally:
            for table in made:
                self._session.run(b"DROP TEMPORARY TABLE IF EXISTS " + table)
