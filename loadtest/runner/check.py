"""Recomputes what was sent from the plan: its ground truth, and the comparison of every table with it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adledger.loadtest.results.run_folder import Verification
from adledger.loadtest.traffic.expected_records import U64, ListedRecords
from adledger.loadtest.traffic.expected_records import _offsets as offsets_of
from adledger.loadtest.traffic.generator import TOPICS, Generator
from adledger.loadtest.traffic.ground_truth import EXPECTED, GroundTruth, GroundTruthBuilder, expected_of
from adledger.loadtest.traffic.kernels.shapes import I64, Records
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.verification.verify import ColumnarClient, VerificationReport, verify

WRONG_MAX = 100


@dataclass(frozen=True, slots=True)
class Sent:
    """The part of a model's records that was sent: in each partition, those planned before `cuts_ms`.

    Records are sent in the order of the plan, so this identifies each one; nothing else has to be stored.
    """

    model: TrafficModel
    cuts_ms: tuple[int, ...]

    def rows(self) -> Iterator[Records]:
        """Yield the rows that were sent, in log order, grouped by (topic, partition) within a chunk."""
        cuts = np.array(self.cuts_ms, np.int64)
        for chunk in Generator(self.model).rows():
            rows = chunk.rows[chunk.order]
            if not (rows["log_time"] < cuts.max()).any():
                return
            yield rows[rows["log_time"] < cuts[rows["partition"]]]

    def ground_truth(self) -> GroundTruth:
        """Return the expected content of the tables."""
        builder = GroundTruthBuilder(self.model)
        for rows in self.rows():
            builder.add(rows)
        return builder.build()

    def records_planned(self, end_ms: int) -> int:
        """Return how many records are planned before a time, sent or not."""
        planned = 0
        for chunk in Generator(self.model).rows():
            planned += int((chunk.rows["log_time"] < end_ms).sum())
        return planned

    # as adledger.loadtest.traffic.expected_records.ExpectedRecords

    def of_publisher_minutes(self, wanted: U64) -> Records:
        """Return the decodable records (EXPECTED) of these publishers and minutes."""
        parts = [ListedRecords(expected).of_publisher_minutes(wanted) for expected in self._expected()]
        return np.concatenate([*parts, np.zeros(0, EXPECTED)])

    def malformed(self) -> Records:
        """Return the malformed records (EXPECTED)."""
        parts = [ListedRecords(expected).malformed() for expected in self._expected()]
        return np.concatenate([*parts, np.zeros(0, EXPECTED)])

    def _expected(self) -> Iterator[Records]:
        ends: I64 = np.zeros((TOPICS, self.model.partitions), np.int64)
        for rows in self.rows():
            yield expected_of(rows, offsets_of(rows, ends))


def not_verified(why: str, expected: int = 0) -> Verification:
    """Return a verification that did not run, with the reason."""
    return Verification(ran=False, equal=False, why_not=why, records_expected=expected)


def checked(sent: Sent, client: ColumnarClient, database: str) -> Verification:
    """Compare every table with the ground truth (before rules, where rules ran), and explain each difference by event."""
    began = time.monotonic()
    # Every rule evaluator is stored before its first use, even one without rules, which enforces nothing.
    ((judges,),) = client.execute(f"SELECT count() FROM {database}.judges WHERE enforced != 0")  # noqa: S608 - ours
    report = verify(sent.ground_truth(), client, database, [sent], before_rules=judges > 0)
    return Verification(
        ran=True, equal=report.equal, records_expected=report.ground_truth.records_received,
        records_found=report.totals.records_received, rows_compared=report.rows_compared,
        rows_wrong=report.rows_wrong, counts_wrong=len(report.wrong_counts), wrong=tuple(_wrong(report)), explanations=tuple(report.explanations),
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def cuts_of(model: TrafficModel, senders: Sequence[tuple[tuple[int, ...], int]]) -> tuple[int, ...]:
    """Return each partition's cut from (partitions, sent until) of the senders."""
    cuts = [model.start_ms] * model.partitions
    for partitions, until_ms in senders:
        for partition in partitions:
            cuts[partition] = until_ms
    return tuple(cuts)


def _wrong(report: VerificationReport) -> Iterator[str]:
    yield from report.wrong_counts[:WRONG_MAX]
    yield from map(str, report.differences[:WRONG_MAX])
