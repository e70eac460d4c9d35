"""The delays after which periods close, as the database has them, and whether the settings agree."""

# ruff: noqa: S608 - the name of the database is a setting with a pattern

from adledger.pipeline.errors import SinkError
from adledger.pipeline.findings import Finding
from adledger.schemas.migrate import MigrationClient
from adledger.schemas.periods import CloseDelay, CloseDelays


def close_delays(client: MigrationClient, database: str) -> CloseDelays:
    """Return the delays of all periods. Raises SinkError where the first row is missing."""
    rows = client.execute(
        "SELECT toUnixTimestamp(effective_from_period), "
        "argMin(period_close_delay_minutes, (written_at, period_close_delay_minutes)) "
        f"FROM {database}.period_settings GROUP BY effective_from_period ORDER BY effective_from_period"
    )
    if not rows or rows[0][0] != 0:
        raise SinkError(
            f"{database}.period_settings has no delay that holds for all periods", remedy="adledger migrate"
        )
    return CloseDelays(tuple(CloseDelay(int(begin) * 1000, int(delay) * 60_000) for begin, delay in rows))


def delay_findings(delays: CloseDelays, database: str, minutes: int) -> list[Finding]:
    """Return why `period_close_delay_minutes` can't be this: events would be in another book than the database says."""
    stored = delays.latest_minutes
    if stored == minutes:
        return []
    return [
        Finding(
            f"period_close_delay_minutes is {minutes}, and database {database} closes periods after {stored} minutes",
            f"set period_close_delay_minutes = {stored} (or ADLEDGER_PERIOD_CLOSE_DELAY_MINUTES={stored})",
        )
    ]


def refuse_other_delay(delays: CloseDelays, database: str, minutes: int) -> None:
    """Raise SinkError for what `delay_findings` finds."""
    for finding in delay_findings(delays, database, minutes):
        raise SinkError(finding.message, remedy=finding.remedy)
