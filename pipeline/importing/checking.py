"""Which records the pipeline will find malformed, by its own decoder, before anything is written or sent."""

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


class ReasonFinder:
    """Decodes records as a worker will, whose topics are of these kinds (DecodeContext.kinds)."""

    def __init__(self, kinds: Sequence[int]) -> None:
        self._context = DecodeContext(0, 1, tuple(kinds), currency_code("USD"))
        self._plain_left = PLAIN_RECORDS_MAX

    def malformed(self, values: Sequence[bytes], topics: Sequence[int], log_time: int) -> dict[int, int]:
        """Return index -> `Malformed` of the malformed records, in their order; `topics` are indexes of `kinds`."""
        if len(values) <= self._plain_left:
            self._plain_left -= len(values)
            plain = (
                decode_plain(value, None, self._context.kinds[topic], log_time, self._context)
                for value, topic in zip(values, topics, strict=True)
            )
            return {i: int(event) for i, event in enumerate(plain) if isinstance(event, Malformed)}
        self._plain_left = 0
        refs = RecordRefs.of(values, [None] * len(values), topics=topics, log_times=[log_time] * len(values))
        status = decode(refs, self._context).status
        return {int(i): int(status[i]) for i in np.flatnonzero(status)}


class RecordCheck:
    """Finds the malformed among records that are to be imported."""

    def __init__(self, latest_ms: int) -> None:
        """Take the latest valid event time: a record with a later one is malformed."""
        self._log_time = latest_ms - FUTURE_MS_MAX
        self._finder = ReasonFinder(_KINDS)

    def checked(self, records: Sequence[ParsedRecord]) -> tuple[list[ParsedRecord], dict[int, int]]:
        """Return the records, malformed ones without an event time; and the reasons of the malformed ones, by index."""
        found = list(records)
        topics = [_KINDS.index(record.event_type) for record in found]
        malformed = self._finder.malformed([record.value for record in found], topics, self._log_time)
        for i in malformed:
            found[i] = found[i]._replace(event_time=None)
        return found, malformed
