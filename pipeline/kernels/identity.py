"""Dedupe keys and fingerprints from columns, compiled. Defined in adledger.pipeline.stages.identity."""

import numpy as np

from adledger.pipeline.kernels.hashing import int_hash64, splitmix64
from adledger.pipeline.kernels.jit import kernel
from adledger.schemas.wire import EventType

_CLICK = int(EventType.CLICK)


@kernel
def dedupe_keys(event_type_code, publisher_id, id_hash, keys, sources):
    """Write the key of each of n events to `keys` (u64[n]), and its source (publisher and type) to `sources` (u64[n])."""
    for i in range(len(keys)):
        kind = np.uint64(event_type_code[i] == _CLICK)
        source = np.uint64(publisher_id[i]) * np.uint64(2) + kind
        sources[i] = source
        keys[i] = splitmix64(id_hash[i] ^ splitmix64(source))


@kernel
def fingerprints(
    event_time,
    site_id,
    campaign_id,
    creative_id,
    advertiser_id,
    user_hash,
    price_micros,
    currency_code,
    impression_hash,
    prints,
):
    """Write the fingerprint of each of n events to `prints` (u32[n])."""
    for i in range(len(prints)):
        h = int_hash64(np.uint64(event_time[i]))
        h = int_hash64(h ^ np.uint64(site_id[i]))
        h = int_hash64(h ^ np.uint64(campaign_id[i]))
        h = int_hash64(h ^ np.uint64(creative_id[i]))
        h = int_hash64(h ^ np.uint64(advertiser_id[i]))
        h = int_hash64(h ^ user_hash[i])
        h = int_hash64(h ^ np.uint64(price_micros[i]))
        h = int_hash64(h ^ np.uint64(currency_code[i]))
        prints[i] = int_hash64(h ^ impression_hash[i])
