"""The ledger check while workers write: batches that are under way, or completed meanwhile, are not lost."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.ledger import audit, queries
from adledger.pipeline.ledger.check import Unledgered
from adledger.pipeline.ledger.queries import TableNames

NOW, SEND_BY = 1_000, 1_002


def found(
    monkeypatch: pytest.MonkeyPatch, first: Sequence[Unledgered], end: int, second: Sequence[Unledgered]
) -> list[int]:
    """Return the batches of lane 0 that are called lost, given two reads of the tables and the ledger's end between them."""
    answers = iter([first, second])
    monkeypatch.setattr(queries, "unledgered", lambda *_: next(answers))
    monkeypatch.setattr(queries, "lanes", lambda *_: [(0, end)])
    monkeypatch.setattr(queries, "server_seconds", lambda *_: NOW)
    client: Any = None
    return [p.batch_no for p in audit._check_unledgered(client, TableNames("d"), ())]


def rows(*batches: int) -> list[Unledgered]:
    return [Unledgered("events", 0, batch_no, 128, SEND_BY) for batch_no in batches]


@given(st.integers(1, 99), st.lists(st.integers(0, 3), min_size=2, max_size=2))
def test_a_lane_that_makes_progress_has_no_lost_batches(begin: int, steps: list[int]) -> None:
    """However many batches it completes between the reads, its batch under way moves on, and none is called lost."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        between = begin + steps[0]
        assert found(monkeypatch, rows(begin + 1), between, rows(between + steps[1] + 1)) == []


def test_a_batch_that_was_passed_over_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that both reads find, and that the lane has passed, is lost."""
    assert found(monkeypatch, rows(8, 12), 12, rows(8, 13)) == [8]
