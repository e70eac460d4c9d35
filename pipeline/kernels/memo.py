"""The decode kernel's memo: its state between records, and scratch space.

It is one block of memory and is passed by address, because numba counts references to every array argument, which costs
more than reading a field.
"""

import numpy as np
import numpy.typing as npt

from adledger.pipeline.kernels import fields as f
from adledger.pipeline.kernels.intrinsics import load64, store64
from adledger.pipeline.kernels.jit import inline_kernel
from adledger.schemas.wire import RECORD_BYTES_MAX

TEXT_ROOM = RECORD_BYTES_MAX + 64
"""Bytes for an unescaped text: it is no longer than the record, and kernels write 32 bytes at once."""

ROW_BYTES = 64
SEPARATOR_BYTES_MAX = 32
ROW_MASK, ROW_LEADS_TO = 32, 40
"""Offsets in the row of a learned separator: after its bytes, their mask, then what it leads to."""

FREE_SLOT = 2**32
"""The length of a name in a free slot."""

# Offsets in bytes. Of the record that is being read, words by field number:
FOUND = 0  # hash, integer or code; after the last field the high half of the address
TEXT_AT = FOUND + 8 * (
    f.KNOWN_END + 1
)  # address of the text: in the record, or in the scratch space where it was escaped
TEXT_LENGTH = TEXT_AT + 8 * f.TEXTS_END  # before truncation
RAW_AT = TEXT_LENGTH + 8 * f.TEXTS_END  # address of the string in the record
RAW_LENGTH = RAW_AT + 8 * f.TEXTS_END
IP_AT = RAW_LENGTH + 8 * f.TEXTS_END
IP_LENGTH = IP_AT + 8
# Limits, words by field number:
LEAST = IP_LENGTH + 8
MOST = LEAST + 8 * f.INTEGERS_END
# Names, by field number, those in slots among them:
SLOTS_WANTING = MOST + 8 * f.INTEGERS_END  # word: 1 when a name found no free slot
NAME_LENGTHS = SLOTS_WANTING + 8  # words
NAMES = NAME_LENGTHS + 8 * f.FIELDS_END
# Of a second reading: the fields that have a value, one bit each; hashes of the unknown names, words:
SEEN = NAMES + f.NAME_BYTES_MAX * f.FIELDS_END
UNKNOWN_MAX = 64
UNKNOWN_HASHES = SEEN + 8
# Room for two texts: one of any field, and one of user_id.
ROOM = UNKNOWN_HASHES + 8 * UNKNOWN_MAX
SEPARATORS = ROOM + 2 * TEXT_ROOM
"""Rows by topic and state."""
SEPARATORS_BYTES = ROW_BYTES * f.STATES
"""Of one topic."""

IP_HIGH = f.KNOWN_END
"""An additional field in FOUND."""


def new_memo(topics: int) -> npt.NDArray[np.uint64]:
    """Return a memo that knows the contract's names and no separators."""
    memo = np.zeros((SEPARATORS + topics * SEPARATORS_BYTES) // 8, np.uint64)
    memo[LEAST // 8 :][: f.INTEGERS_END] = f.LEAST
    memo[MOST // 8 :][: f.INTEGERS_END] = f.MOST
    memo[NAME_LENGTHS // 8 :][: f.FIELDS_END] = [len(name) for name in f.NAMES] + [
        FREE_SLOT
    ] * f.UNKNOWN_SLOTS
    names = b"".join(name.encode().ljust(f.NAME_BYTES_MAX, b"\0") for name in f.NAMES)
    memo.view(np.uint8)[NAMES:][: len(names)] = np.frombuffer(names, np.uint8)
    return memo


@inline_kernel
def get(memo, part, number):
    """Return word `number` (u64) of a part of the memo."""
    return load64(memo + part + 8 * number)


@inline_kernel
def put(memo, part, number, word):
    """Set word `number` of a part of the memo to a u64."""
    store64(memo + part + 8 * number, np.uint64(word))


@inline_kernel
def forget_names(memo, topics):
    """Free the slots of unknown names, and forget all separators, which may lead to them."""
    put(memo, SLOTS_WANTING, 0, 0)
    for number in range(f.KNOWN_END, f.FIELDS_END):
        put(memo, NAME_LENGTHS, number, FREE_SLOT)
    for word in range(topics * SEPARATORS_BYTES // 8):
        put(memo, SEPARATORS, word, 0)
