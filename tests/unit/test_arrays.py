"""A query for arrays returns, from the bytes of the wire on, arrays of the declared dtype, sparse columns included."""

import re
import socket
from types import SimpleNamespace

import numpy as np
import pytest
from clickhouse_driver.bufferedreader import BufferedSocketReader
from clickhouse_driver.streams.native import BlockInputStream

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkError
from adledger.sinks.arrays import column_array
from adledger.sinks.connection import Client
from adledger.sinks.embedded.packets import string, varint

REVISION = 54454
"""The first with sparse columns."""
END_OF_GRANULE = 1 << 62
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
SPARSE = b"\x01\x01"


def sparse_block(rows: int) -> bytes:
    """Return a block of two sparse columns: UInt8, where row 2 is 1, and Int64, where the last row is -1."""
    number = SPARSE + varint(2) + varint(END_OF_GRANULE | rows - 3) + b"\x01"
    big = SPARSE + varint(rows - 1) + varint(END_OF_GRANULE) + b"\xff" * 8
    columns = string(b"topic") + string(b"UInt8") + number + string(b"nanos") + string(b"Int64") + big
    return BLOCK_INFO + varint(2) + varint(rows) + columns


class SparseClient(Client):
    """A client whose server answers every query with one block of sparse columns."""

    def establish_connection(self, settings: dict[str, object] | None) -> None:
        """Do nothing: the response is already there."""
        self.make_query_settings(settings)

    def packet_generator(self):  # type: ignore[no-untyped-def]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(sparse_block(100))
            context = SimpleNamespace(
                server_info=SimpleNamespace(used_revision=REVISION, get_timezone=lambda: "UTC"),
                client_settings={"use_numpy": True, "strings_as_bytes": True},
                settings={},
            )
            block = BlockInputStream(BufferedSocketReader(ours, 1024), context).read(use_numpy=True)
            assert isinstance(block.get_columns()[0], list), "the driver makes a list: what this is all about"
            yield SimpleNamespace(block=block)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> SparseClient:
    client = SparseClient(ServerAddress("127.0.0.1", 1, 1))
    monkeypatch.setattr(client.connection, "send_query", lambda *_: None)
    monkeypatch.setattr(client.connection, "send_external_tables", lambda *_: None)
    client.connection.server_info = SimpleNamespace(session_timezone=None)
    return client


def test_a_sparse_column_is_read_as_an_array(client: SparseClient) -> None:
    """It has its declared dtype, so that comparing it yields one value for each row."""
    topic, nanos = client.columns("SELECT topic, nanos FROM t") or ()
    assert topic.dtype == np.uint8
    assert np.flatnonzero(topic == 1).tolist() == [2]
    assert nanos.dtype == np.int64
    assert nanos.tolist() == [*[0] * 99, -1]


@pytest.mark.parametrize("type_name", ["Enum8('a' = 1)", "String", "Nullable(UInt8)", "Array(UInt8)"])
def test_a_type_that_is_not_numeric_is_refused(type_name: str) -> None:
    """Such a query converts on the server, or reads rows: nothing is guessed, and no string loses a trailing zero byte."""
    with pytest.raises(SinkError, match=rf"column x is {re.escape(type_name)}"):
        column_array([0], "x", type_name)
