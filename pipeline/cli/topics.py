"""`adledger topics`: Kafka topics with the settings that the protocol needs."""

from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, out, out_json, out_table, quiet_kafka_client

if TYPE_CHECKING:
    from adledger.pipeline.log.kafka_admin.topics import Checked
    from adledger.pipeline.settings import Settings

topics = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@topics.callback()
def root() -> None:
    """Create and check the topics of a deployment on Kafka.

    \b
    Examples:
      adledger topics create --source kafka://localhost:9092
      adledger topics check
    """


@topics.command("create")
@options.deployment("source")
def create(
    given: options.Deployment,
    *,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="Lanes: partitions of each event topic (16)."),
    ] = None,
    replication_factor: Annotated[
        int, typer.Option("--replication-factor", min=1, max=100, metavar="N", help="Copies of each event.")
    ] = 1,
    as_json: options.Json = False,
) -> None:
    """Create the missing topics: impressions, clicks, and rollups.

    They use append time, are not compacted, and are retained for longer than the dedupe window and an outage together. Existing topics are never altered: the command reports what is wrong with them, and how to fix it. A second run does nothing. Choose enough partitions for growth: adding some later moves users to other lanes, and needs a repartitioning (docs/partitions.md).

    \b
    Examples:
      adledger topics create --source kafka://localhost:9092
      adledger topics create --partitions 64 --replication-factor 3
      adledger topics create --set topics=ad.backfill --set log_time=record --json
    """
    settings = given.settings

    import asyncio

    from adledger.pipeline.log.kafka_admin.topics import check_topics, create_topics

    quiet_kafka_client()

    async def create_and_check() -> "tuple[tuple[str, ...], Checked]":
        return await create_topics(settings, partitions, replication_factor), await check_topics(settings)

    made, checked = asyncio.run(create_and_check())
    _report(settings, checked, made, as_json=as_json)


@topics.command("check")
@options.deployment("source")
def check(
    given: options.Deployment,
    *,
    as_json: options.Json = False,
) -> None:
    """Check that topics and brokers fit the protocol: append time, no compaction, retention, partitions.

    Exits with 1 if a worker would refuse to start. Each finding has the command that fixes it; what is only risky (few copies) is marked as advice.

    \b
    Examples:
      adledger topics check --source kafka://localhost:9092
      adledger topics check --json | jq .findings
    """
    settings = given.settings

    import asyncio

    from adledger.pipeline.log.kafka_admin.topics import check_topics

    quiet_kafka_client()
    _report(settings, asyncio.run(check_topics(settings)), (), as_json=as_json)


def _report(settings: "Settings", checked: "Checked", made: tuple[str, ...], *, as_json: bool) -> None:
    """Print topics and findings; exit with 1 if a worker would not start."""
    if as_json:
        out_json({
            "log": str(settings.source),
            "topics": [
                {
                    "name": t.name, "exists": not t.error_code, "made": t.name in made, "id": t.topic_id,
                    "partitions": t.partitions, "replication_factor": t.replication_factor,
                }
                for t in checked.topics
            ],
            "findings": [
                {"message": f.message, "remedy": f.remedy, "advice": f.advice} for f in checked.findings
            ],
            "fit": checked.fit,
        })  # fmt: skip
    else:
        rows = [
            (t.name, t.partitions, t.replication_factor, t.topic_id, "made" if t.name in made else "")
            for t in checked.topics
            if not t.error_code
        ]
        if rows:
            out_table(("topic", "partitions", "copies", "id", ""), rows)
        for finding in checked.findings:
            err(
                f"{'advice: ' if finding.advice else ''}{finding.message}\n"
                f"  {'better' if finding.advice else 'remedy'}: {finding.remedy}"
            )
        out("fit: yes" if checked.fit else "fit: NO")
    if not checked.fit:
        raise typer.Exit(1)
