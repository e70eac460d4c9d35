"""Which imported records the pipeline will find malformed, by its own decoder, before anything is written."""

from collections.abc import Sequence

import numpy as np

from adledger.pipeline.importing.records import ParsedRecord
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.pipeline.stages.slow_path import decode_plain
from adledger.schemas.wire import FUTURE_MS_MAX, EventType, Malformed, currency_code

PLAIN_RECORDS_MAX = 4_096
"""Up to this many records are decoded in plain Python, which compiles no kernel; both paths have the same results."""

_KINDS = (int(EventType.IMPRESSION), int(EventType.CLICK))
_CONTEXT = DecodeContext(lane=0, partitions=1, kinds=_KINDS, default_currency=currency_code("USD"))


class RecordCheck:
    """Decodes records as a worker will."""

    def __init__(self, latest_ms: int) -> None:
        """Take the latest valid event time: a record with a later one is malformed."""
        self._log_time = latest_ms - FUTURE_MS_MAX
        self._plain_left = PLAIN_RECORDS_MAX

    def checked(self, records: Sequence[ParsedRecord]) -> tuple[list[ParsedRecord], dict[int, int]]:
        """Return the records, malformed ones without an event time; and the reasons of the malformed ones, by index."""
        found = list(records)
        malformed = self._malformed(found)
        for i in malformed:
            found[i] = found[i]._replace(event_time=None)
        return found, malformed

    def _malformed(self, records: list[ParsedRecord]) -> dict[int, int]:
        if len(records) <= self._plain_left:
            self._plain_left -= len(records)
            plain = (
                decode_plain(r.value, r.key, int(r.event_type), self._log_time, _CONTEXT) for r in records
            )
            return {i: int(event) for i, event in enumerate(plain) if isinstance(event, Malformed)}
        self._plain_left = 0
        refs = RecordRefs.of(
            [record.value for record in records],
            [record.key for record in records],
            topics=[int(record.event_type) - 1 for record in records],
            log_times=[self._log_time] * len(records),
        )
        status = decode(refs, _CONTEXT).status
        return {int(i): int(status[i]) for i in np.flatnonzero(status)}
