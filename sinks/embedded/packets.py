"""Packets of ClickHouse's native protocol: reads those of clients, and creates those of the server.

The revision is the last one before each column of a block has an additional byte (custom serialisation, 54454): up to it,
a block on the wire is the engine's Native format after eight bytes, and passes through unchanged.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from adledger.sinks.embedded.buffers import Inbound
from adledger.sinks.embedded.errors import NOT_IMPLEMENTED, ServerError

REVISION = 54453
REVISION_MIN = 54429
"""From this revision on (ClickHouse 20.1) settings are sent as strings."""

_WITH_INTERSERVER_SECRET = 54441
_WITH_OPENTELEMETRY = 54442
_WITH_DISTRIBUTED_DEPTH = 54448
_WITH_QUERY_START_TIME = 54449
_WITH_PARALLEL_REPLICAS = 54453

HELLO, QUERY, DATA, CANCEL, PING, TABLES_STATUS = range(6)
"""Packets of clients."""

_S_HELLO, _S_DATA, _S_EXCEPTION, _S_PROGRESS, _S_PONG, _S_END, _S_PROFILE = range(7)

PONG = bytes([_S_PONG])
END_OF_STREAM = bytes([_S_END])
DATA_HEAD = bytes([_S_DATA, 0])
"""Packet type and an empty table name; the block follows."""

COMPRESSION_ON = 1

_IMPORTANT = 1
_QUERY_KIND_NONE = 0
_INTERFACE_TCP = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's greeting; `revision` is already the one that both sides support."""

    client: bytes
    revision: int
    database: bytes
    user: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """A client's query. `required` are the settings that must be known."""

    query_id: str
    settings: dict[str, str]
    required: frozenset[str]
    compressed: bool
    sql: bytes


def read_hello(inbound: Inbound) -> Hello:
    """Read a client's first packet, its type already read."""
    client = inbound.string()
    inbound.varint()
    inbound.varint()
    revision = inbound.varint()
    database, user = inbound.string(), inbound.string()
    inbound.string()  # the password: every client on the loopback is accepted
    return Hello(client, min(revision, REVISION), database, user)


def check_revision(revision: int) -> None:
    """Raise ServerError for a client whose protocol is too old."""
    if revision < REVISION_MIN:
        raise ServerError(
            NOT_IMPLEMENTED,
            f"The client speaks revision {revision} of the protocol, this server {REVISION_MIN} and later: "
            "use a ClickHouse client of 2020 or later. (NOT_IMPLEMENTED)",
        )


def read_query(inbound: Inbound, revision: int) -> Query:
    """Read a query packet, its type already read."""
    query_id = inbound.string().decode("utf-8", "replace")
    _skip_client_info(inbound, revision)
    settings: dict[str, str] = {}
    required = set()
    while name := inbound.string().decode("utf-8", "replace"):
        flags = inbound.varint()
        settings[name] = inbound.string().decode("utf-8", "replace")
        if flags & _IMPORTANT:
            required.add(name)
    if revision >= _WITH_INTERSERVER_SECRET:
        inbound.string()
    inbound.varint()  # the stage up to which to run the query
    compressed = inbound.varint() == COMPRESSION_ON
    return Query(query_id, settings, frozenset(required), compressed, inbound.string())


def _skip_client_info(inbound: Inbound, revision: int) -> None:  # noqa: C901 - a list of fields, each since a revision
    if inbound.byte() == _QUERY_KIND_NONE:
        return
    for _ in range(3):
        inbound.string()  # initial user, query id and address
    if revision >= _WITH_QUERY_START_TIME:
        inbound.skip(8)
    if inbound.byte() == _INTERFACE_TCP:
        for _ in range(3):
            inbound.string()  # user, host and client names
        for _ in range(3):
            inbound.varint()  # version
    inbound.string()  # quota key
    if revision >= _WITH_DISTRIBUTED_DEPTH:
        inbound.varint()
    inbound.varint()  # version's patch
    if revision >= _WITH_OPENTELEMETRY and inbound.byte():
        inbound.skip(24)  # trace and span
        inbound.string()
        inbound.skip(1)
    if revision >= _WITH_PARALLEL_REPLICAS:
        for _ in range(3):
            inbound.varint()


def varint(value: int) -> bytes:
    """Return an unsigned LEB128 number."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def string(value: bytes) -> bytes:
    """Return a string with its length before it."""
    return varint(len(value)) + value


def hello(version: tuple[int, int, int], timezone: bytes, display_name: bytes) -> bytes:
    """Return the server's answer to a client's hello."""
    major, minor, patch = map(varint, version)
    return b"".join(
        (bytes([_S_HELLO]), string(b"ClickHouse"), major, minor, varint(REVISION), string(timezone),
         string(display_name), patch)
    )  # fmt: skip


def exception(error: ServerError) -> bytes:
    """Return the packet that ends a query with an error."""
    return b"".join(
        (bytes([_S_EXCEPTION]), error.code.to_bytes(4, "little", signed=True), string(b"DB::Exception"),
         string(b"DB::Exception: " + error.message.encode("utf-8", "surrogateescape")), string(b""), b"\x00")
    )  # fmt: skip


def progress(read: tuple[int, int], to_read: int = 0, written: tuple[int, int] = (0, 0)) -> bytes:
    """Return a progress packet: (rows, bytes) read and written since the last one, and rows expected in total."""
    return bytes([_S_PROGRESS]) + b"".join(map(varint, (*read, to_read, *written)))


def profile(rows: int, blocks: int, size: int) -> bytes:
    """Return the packet with a result's rows, blocks and bytes."""
    return bytes([_S_PROFILE]) + varint(rows) + varint(blocks) + varint(size) + b"\x00" + varint(0) + b"\x00"


def sample_block(columns: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a block without rows, in Native format: names and types."""
    named = [string(name) + string(type_name) for name, type_name in columns]
    return varint(len(named)) + b"\x00" + b"".join(named)
