"""Marking the events that came after their period closed."""

import numpy as np

from adledger.pipeline.kernels.jit import kernel
from adledger.schemas.periods import PERIOD_MS
from adledger.schemas.wire import Flag

_AFTER_CLOSE = np.uint16(1 << Flag.AFTER_CLOSE)


@kernel
def mark(event_time, clock, begins, delays, flags):
    """Set AFTER_CLOSE in flags u16[n] where clock i64[n] is past the close of event_time's period.

    begins i64[s], ascending from 0, and delays i64[s]: the delay of periods that begin there or later, in ms.
    """
    last = len(begins) - 1
    for i in range(len(event_time)):
        begin = event_time[i] // PERIOD_MS * PERIOD_MS
        step = last
        while step > 0 and begins[step] > begin:
            step -= 1
        if clock[i] > begin + PERIOD_MS + delays[step]:
            flags[i] |= _AFTER_CLOSE
