"""`adledger check` and the pipeline agree on every record: the same reason, and the field at fault."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from adledger.pipeline.importing.checking import PLAIN_RECORDS_MAX
from adledger.pipeline.importing.contract import check_lines
from adledger.pipeline.importing.lines import LINE_BYTES_MAX
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.pipeline.stages.malformed import refusal_of
from adledger.schemas import wire
from tests.support import wire_texts as wt
from tests.support.one_record import GOOD


def fuzzed_lines(rng: random.Random, count: int) -> list[bytes]:
    """Return records that a file of lines can hold: no line break, not blank."""
    lines: list[bytes] = []
    while len(lines) < count:
        value = (wt.fuzzed(rng)[0] or b"").replace(b"\n", b" ").rstrip(b"\r")
        if value.strip():
            lines.append(value)
    return lines


def checked(
    path: Path, lines: list[bytes], kind: int, clock: Callable[[], int]
) -> dict[int, tuple[int, str]]:
    """Return line -> (reason, field) as `check` finds them."""
    path.write_bytes(b"\n".join(lines) + b"\n")
    found: dict[int, tuple[int, str]] = {}
    records = 0
    for chunk in check_lines(path, path.name, topic_kind=kind, clock=clock):
        records += chunk.records
        found |= {p.line: (p.why.reason, p.why.field) for p in chunk.problems}
    assert records == len(lines)
    return found


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("count", [1_000, PLAIN_RECORDS_MAX + 1_000], ids=["slow path", "fast path"])
def test_every_record_has_the_pipelines_reason_and_field(tmp_path, kind, count):
    """Law: what `check` says of a line is what a worker's decode says of the record, on either path."""
    lines = [GOOD, *fuzzed_lines(random.Random(17 * count + kind), count)]
    refs = RecordRefs.of(lines, [None] * len(lines), log_times=[wt.LOG_TIME] * len(lines))
    status = decode(refs, DecodeContext(0, 1, (kind,), wire.currency_code("USD"))).status
    expected = {}
    for i in status.nonzero()[0].tolist():
        why = refusal_of(lines[i], kind, wt.LOG_TIME)
        assert why is not None
        expected[i + 1] = (int(status[i]), why.field)
    assert checked(tmp_path / "events.ndjson", lines, kind, lambda: wt.LOG_TIME) == expected
    assert len({reason for reason, _ in expected.values()}) >= 6, "the fuzzing must reach them"


def test_a_line_longer_than_what_is_read_is_too_large(tmp_path):
    """Its reason is the pipeline's, and what was found is its whole length; lines after it keep their numbers."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join([GOOD, GOOD.ljust(LINE_BYTES_MAX + 7), b"{}", GOOD]))
    problems = [
        p for c in check_lines(path, "f", topic_kind=0, clock=lambda: wt.LOG_TIME) for p in c.problems
    ]
    assert [(p.line, p.why.reason) for p in problems] == [
        (2, wire.Malformed.TOO_LARGE),
        (3, wire.Malformed.MISSING_FIELD),
    ]
    assert problems[0].why.found == f"{LINE_BYTES_MAX + 7:,} bytes"
