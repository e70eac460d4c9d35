"""Recomputes the dependent columns of rows after a script has changed others."""

import numpy as np

from adledger.loadtest.traffic.kernels.fill import BILLABLE, DUPLICATE, EXPIRED, IMPRESSION
from adledger.loadtest.traffic.kernels.keys import key_partition, put_id, put_ip
from adledger.loadtest.traffic.kernels.shapes import KEY_IP, KEY_USER
from adledger.pipeline.kernels.jit import kernel


@kernel
def finish_rows(tb, rows, scratch):
    """Recompute key, partition, money and class of rows from their other columns.

    Rows of class DUPLICATE keep that class; `scratch` is as for fill_rows.
    """
    key = np.int64(scratch.ctypes.data)
    for i in range(len(rows)):
        row = rows[i]
        row.topic = row.event_type - 1
        if row.has_user:
            row.key_kind = KEY_USER
            n = put_id(key, row.user_no, row.long_ids) - key
        else:
            row.key_kind = KEY_IP
            n = put_ip(key, row.ip_hi, row.ip_lo, row.ip6) - key
        row.partition = key_partition(key, n, tb.partitions)
        row.misrouted = 0
        row.money_nanos = np.int64(row.price_micros) * (1 if row.event_type == IMPRESSION else 1_000)
        if row.class_code != DUPLICATE:
            row.class_code = EXPIRED if row.log_time - row.event_time > tb.allowed_lateness_ms else BILLABLE
