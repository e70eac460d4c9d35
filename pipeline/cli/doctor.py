"""`adledger doctor`: what is wrong with a deployment, and the command that fixes it."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import out, out_json, quiet_kafka_client
from adledger.pipeline.cli.remedies import command_flags, complete
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.pipeline.doctor.report import Check

MARKS = {"fine": "✓", "advice": "!", "error": "✗", "not made": "-"}


@options.deployment("source", "clickhouse", "database", "group")
def doctor(
    given: options.Deployment,
    *,
    as_json: options.Json = False,
) -> None:
    """Find what is wrong with a deployment, and how to fix it.

    Checks settings, brokers, topics, the group and its committed intents, keys and partitioners of the newest records, ClickHouse and its tables, clocks and this machine. It changes nothing, and can run beside workers. Exits with 1 if something is wrong; advice (marked !) is for you to weigh.

    \b
    Examples:
      adledger doctor --source kafka://k1:9092 --clickhouse clickhouse://ads@ch1:9440/?secure=1
      adledger doctor --config /etc/adledger.toml
      adledger doctor --json | jq '.checks[] | select(.state == "error") | .findings'
    """
    from adledger.pipeline.doctor.report import as_json as report_json
    from adledger.pipeline.doctor.report import found_wrong

    checks = _examined(given)
    out_json(report_json(checks)) if as_json else _print(checks)
    if found_wrong(checks):
        raise typer.Exit(1)


def _examined(given: options.Deployment) -> "Sequence[Check]":
    from dataclasses import replace

    from adledger.pipeline.doctor.report import Check
    from adledger.pipeline.findings import Finding

    try:
        loaded = given.load()
    except UsageError as error:
        refused = Check(
            "settings",
            "as configured",
            [Finding(error.message, error.remedy or "`adledger config NAME` explains a setting")],
        )
        return [refused, Check("deployment", "", not_made="the settings are refused")]

    from adledger.pipeline.doctor.examine import examine

    quiet_kafka_client()
    checks = [
        Check("settings", "valid, without contradictions"),
        *examine(loaded.settings, connect.client),
    ]
    flags = command_flags(loaded, given.config_file)
    return [
        replace(check, findings=[replace(f, remedy=complete(f.remedy, flags)) for f in check.findings])
        for check in checks
    ]


def _print(checks: "Sequence[Check]") -> None:
    """Print a checklist by area, each finding below its check."""
    from adledger.pipeline.doctor.report import CheckState

    for area in dict.fromkeys(check.area for check in checks):
        out(area)
        for check in (c for c in checks if c.area == area):
            what = "; ".join(
                text
                for text in (check.what, f"not checked: {check.not_made}" if check.not_made else "")
                if text
            )
            out(f"  {MARKS[check.state]} {what}")
            for finding in check.findings:
                mark = MARKS[CheckState.ADVICE if finding.advice else CheckState.ERROR]
                # A message may list several mistakes, each with its remedy.
                out(textwrap.indent(f"{mark} {finding.message}", " " * 6))
                if finding.remedy:
                    out(f"        {'better' if finding.advice else 'remedy'}: {finding.remedy}")
    counts = {state: sum(check.state == state for check in checks) for state in CheckState}
    plural = {CheckState.ERROR} if counts[CheckState.ERROR] > 1 else set()
    out(", ".join(f"{n} {state}{'s' if state in plural else ''}" for state, n in counts.items() if n))
