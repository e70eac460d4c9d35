"""The demo's ground truth is what a plain count finds in its log: real files, generated events, offsets."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from adledger.loadtest.demo.procedure import Filled, fill_log
from adledger.loadtest.real_logs.expected import SITE
from adledger.loadtest.traffic.expected_records import publisher_minutes
from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.pipeline.errors import UsageError
from adledger.schemas.classes import Class
from adledger.schemas.wire import Malformed
from tests.support.files_log import read_log
from tests.support.plain_count import Counted, LogRecord, count

MODEL = TrafficModel(
    events=20_000,
    partitions=4,
    duration_hours=30,
    second_currency_share=0.1,
    duplicate_share=0.05,
    scenarios=(Scenario(kind="replay"), Scenario(kind="double_click")),
)


class Silent:
    """Shows nothing."""

    def importing(self, name: str):
        return lambda _done, _of: None

    def generating(self, events: int):
        return lambda _written: None


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[Path, Filled]:
    log = tmp_path_factory.mktemp("demo") / "log"
    return log, fill_log(log, MODEL, Silent())


@pytest.fixture(scope="module")
def counted(filled) -> Counted:
    lanes = defaultdict(list)
    for (topic, lane), records in read_log(filled[0]).items():
        lanes[lane] += [LogRecord(time, topic, offset, key, value) for offset, time, key, value in records]
    return count(lanes, partitions=MODEL.partitions)


def test_the_ground_truth_equals_a_plain_count(filled, counted: Counted):
    """Rollup, classes by lane, reasons, wrong keys and conflicts all equal the plain count of the log."""
    ground_truth = filled[1].ground_truth
    found = {tuple(row[:5]): tuple(row[5:]) for row in ground_truth.rollup.tolist()}
    assert found == counted.rollup
    lanes = range(MODEL.partitions)
    assert ground_truth.classes.tolist() == [
        [counted.classes[lane, code] for code in range(8)] for lane in lanes
    ]
    assert ground_truth.malformed.tolist() == [
        counted.malformed[reason] for reason in range(len(ground_truth.malformed))
    ]
    assert ground_truth.misrouted.tolist() == [counted.misrouted[lane] for lane in lanes]
    assert ground_truth.conflicts.tolist() == [counted.conflicts[lane] for lane in lanes]


def test_the_real_logs_are_counted_in_full(filled):
    """There are 20,046 records, one of them malformed; each impression is worth a milli, each of 46 clicks half a unit."""
    real, _ = filled[1].expected
    assert filled[1].real_records == len(real.records) == 20_046
    assert real.malformed()["malformed"].tolist() == [Malformed.NOT_JSON]
    assert (real.records["class_code"] == Class.BILLABLE).sum() == 20_045
    assert real.records["money_nanos"].sum() == 19_999 * 1_000_000 + 46 * 500_000_000
    assert (real.records["publisher_id"] == SITE).sum() == 9_999


def test_each_offset_is_expected_once(filled):
    """Expectations of single records name each offset of the log once, and add up to the ground truth."""
    log, result = filled
    places = defaultdict(set)
    for source in result.expected:
        rows = np.concatenate(
            [source.of_publisher_minutes(publisher_minutes(result.ground_truth.rollup)), source.malformed()]
        )
        for topic, lane, offset in rows[["topic", "partition", "offset"]].tolist():
            assert offset not in places[topic, lane]
            places[topic, lane].add(offset)
    assert places == {place: set(range(len(records))) for place, records in read_log(log).items() if records}


def test_traffic_must_fit_the_log(filled):
    """Other partitions, or log times that would step back, are refused before anything is written."""
    from adledger.loadtest.traffic.write import write_traffic
    from adledger.pipeline.log.files.writer import FilesLogWriter

    with FilesLogWriter(filled[0]) as writer:
        with pytest.raises(UsageError, match="partitions"):
            write_traffic(TrafficModel(events=10, partitions=3), writer, lambda _: None)
        with pytest.raises(UsageError, match="log time would fall"):
            write_traffic(MODEL, writer, lambda _: None)
