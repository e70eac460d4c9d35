"""The sampled day end to end: a tiny one, through the real worker and engine, with retention, verified in full."""

import json
from pathlib import Path

from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import UsageError

WHOLE = 15_000_000
"""So that one lane of fifty, a minute an hour, is 5,000 events."""


def test_a_day_runs_in_log_time_and_is_verified(tmp_path: Path):
    """All 24 hours pass, retention drops old days, and every publisher-minute equals the ground truth.

    Figures of the whole day are the sample's figures an event, times the day's events.
    """
    at = (
        "--events",
        str(WHOLE),
        "--scale",
        "1/3000",
        "--batch-seconds",
        "60",
        "--folder",
        str(tmp_path / "day"),
    )
    ran = CliRunner().invoke(app, ["loadtest", "day", *at, "--once", "--json"])
    assert ran.exit_code == 0, (ran.output, ran.exception)
    result = json.loads(ran.stdout)
    (sample,) = result["samples"]
    assert sample["problems"] == []
    assert sample["events"] == WHOLE // 3_000
    assert sample["quarters_closed"] >= 4 * 24 - 4
    assert sample["retention_rows"] > 0
    assert sample["batches"] == -(-sample["events"] // round(WHOLE / 86_400 / 50 * 60))
    figures = {figure["name"]: figure["value"] for figure in result["whole_day"]}
    assert figures["events rows"] == sample["rows"]["events"] * 3_000
    assert json.loads((tmp_path / "day" / "day.json").read_text())["samples"] == result["samples"]

    again = CliRunner().invoke(app, ["loadtest", "day", *at, "--once"])
    assert isinstance(again.exception, UsageError), "a folder that holds something is refused"
