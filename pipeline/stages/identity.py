"""Identity: which events are the same event, and whether two copies of one carry the same payload.

Both numbers are computed from columns of `events` alone, so that state can be rebuilt from ClickHouse. The fingerprint
uses functions that ClickHouse has, so it computes that of stored rows itself (adledger.sinks.queries), and nine columns
need not be transferred to rebuild a window (ADR 18). With splitmix64 and intHash64 of
adledger.pipeline.stages.plain_hashes, in UInt64 that wraps:

    source       2 * publisher_id + (1 for a click, else 0)
    key          splitmix64(id_hash xor splitmix64(source))
    fingerprint  h = 0, then h = intHash64(h xor x) for each x of `FINGERPRINTED`, in that order, each as a
                 UInt64; the low 32 bits of the last h

Two events are the same where key *and* source are equal: xxHash64 and splitmix64 can be inverted, so anyone can construct
an id whose key equals that of another publisher's event. With the source, the key is as exact as the 64 bits of `id_hash`.
"""

import numpy as np

from adledger.pipeline.kernels import identity as kernels
from adledger.pipeline.records.columns import U32, U64, Array, EventColumns
from adledger.pipeline.stages.plain_hashes import int_hash64, splitmix64
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.wire import EventType

FINGERPRINTED = (
    "event_time",
    "site_id",
    "campaign_id",
    "creative_id",
    "advertiser_id",
    "user_hash",
    "price_micros",
    "currency_code",
    "impression_hash",
)
"""The columns that a fingerprint covers, in its order."""

_KEYED = ("event_type_code", "publisher_id", "id_hash")


def identity(columns: EventColumns) -> tuple[U64, U64, U32]:
    """Return the dedupe keys, sources and fingerprints of n events."""
    return *dedupe_keys(columns), fingerprints(columns)


def dedupe_keys(columns: EventColumns) -> tuple[U64, U64]:
    """Return the dedupe keys and sources of n events; columns that these don't depend on may be empty."""
    keys, sources = np.empty(len(columns.id_hash), np.uint64), np.empty(len(columns.id_hash), np.uint64)
    kernels.dedupe_keys(*_arrays(columns, _KEYED), keys, sources)
    return keys, sources


def fingerprints(columns: EventColumns) -> U32:
    """Return the fingerprints of n events."""
    prints = np.empty(len(columns), np.uint32)
    kernels.fingerprints(*_arrays(columns, FINGERPRINTED), prints)
    return prints


def _arrays(columns: EventColumns, names: tuple[str, ...]) -> list[Array]:
    """Return columns as the array type that the kernels are compiled for."""
    return [np.require(getattr(columns, name), EVENT_DTYPES[name], ["C", "W"]) for name in names]


def plain_key(event_type_code: int, publisher_id: int, id_hash: int) -> int:
    """Return the dedupe key of one event: the plain twin."""
    return splitmix64(id_hash ^ splitmix64(2 * publisher_id + (event_type_code == EventType.CLICK)))


def plain_fingerprint(values: tuple[int, ...]) -> int:
    """Return the fingerprint of one event from its values of `FINGERPRINTED`: the plain twin."""
    h = 0
    for value in values:
        h = int_hash64(h ^ value)
    return h & 0xFFFFFFFF
