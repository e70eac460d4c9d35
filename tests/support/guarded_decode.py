"""Decode fuzzed records just before an unreadable page; run as a program, it dies where one is read.

python -m tests.support.guarded_decode SEED
"""

import ctypes
import mmap
import random
import sys

import numpy as np

from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.schemas.wire import RECORD_BYTES_MAX
from tests.support import wire_texts as wt

RECORDS = 2_000
SIZE = -(-(RECORD_BYTES_MAX + 1_024) // mmap.PAGESIZE) * mmap.PAGESIZE
PROT_NONE = 0


def guarded_memory() -> tuple[mmap.mmap, int]:
    """Return memory and the address of the page in it that can't be read, `SIZE` bytes from its start."""
    memory = mmap.mmap(-1, SIZE + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start + SIZE), mmap.PAGESIZE, PROT_NONE) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    return memory, start + SIZE


def main(seed: int) -> None:
    rng = random.Random(seed)
    memory, wall = guarded_memory()
    context = DecodeContext(wt.LANE, wt.PARTITIONS, (0,), 1)
    for _ in range(RECORDS):
        value, key = wt.fuzzed(rng)
        value = (value or b"")[: SIZE - 1_024]
        value = value[: rng.randrange(len(value) + 1)] if rng.random() < 0.5 else value
        at = wall - READ_AHEAD_BYTES - len(value)
        garbage = rng.choice((b"\0", b" ", b'"', b"0", b"}", b"x", b"\\", b"\xff")) * READ_AHEAD_BYTES
        memory[SIZE - READ_AHEAD_BYTES - len(value) : SIZE] = value + garbage
        refs = RecordRefs.of([value], [key], log_times=[wt.LOG_TIME])
        refs.value_addr[:] = np.int64(at)
        decode(refs, context)


if __name__ == "__main__":
    main(int(sys.argv[1]))
