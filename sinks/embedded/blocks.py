"""Native blocks at the head of a stream: where one ends, and its column names."""

from dataclasses import dataclass
from functools import lru_cache

from adledger.sinks.embedded.buffers import BytesInbound, Disconnected, Inbound
from adledger.sinks.embedded.columns import Walk, walker

COLUMNS_MAX = 100_000
_HEAD_BYTES = 20  # two varints

BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
"""Field 1, no overflow rows; field 2, bucket -1; end. Precedes every block on the wire, and none in a Native file."""

Columns = tuple[tuple[bytes, bytes], ...]
"""Names and types."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block after `walk_block`: columns as (name, type), rows, and its bytes in Native format from `mark`."""

    columns: Columns
    rows: int
    mark: int

    @property
    def is_end(self) -> bool:
        """Whether it is the block without columns that ends a transfer."""
        return not self.columns


def walk_block(inbound: Inbound) -> Block:
    """Step over a block and the information before it; `inbound.since(block.mark)` are then its bytes."""
    _skip_info(inbound)
    return _walk_columns(inbound)


def split_blocks(data: bytes) -> list[tuple[Columns, bytes]]:
    """Return the blocks of a result in Native format, each with its columns."""
    inbound = BytesInbound(data)
    found = []
    while inbound.at < len(data):
        start = inbound.at
        block = _walk_columns(inbound)
        found.append((block.columns, data[start : inbound.at]))
    return found


def block_rows(data: bytes) -> int:
    """Return how many rows a block in Native format has."""
    inbound = BytesInbound(data[:_HEAD_BYTES])
    inbound.varint()
    return inbound.varint()


def _walk_columns(inbound: Inbound) -> Block:
    mark = inbound.mark()
    count, rows = inbound.varint(), inbound.varint()
    if count > COLUMNS_MAX:
        raise Disconnected(f"a block of {count} columns")
    columns = []
    for _ in range(count):
        name, type_name = inbound.string(), inbound.string()
        if rows:
            _walker(type_name)(inbound, rows)
        columns.append((name, type_name))
    return Block(tuple(columns), rows, mark)


def _skip_info(inbound: Inbound) -> None:
    while field := inbound.varint():
        if field == 1:
            inbound.skip(1)
        elif field == 2:
            inbound.skip(4)
        else:
            raise Disconnected(f"unknown field {field} before a block")


@lru_cache(maxsize=4096)
def _walker(type_name: bytes) -> Walk:
    return walker(type_name.decode("utf-8", "replace"))
