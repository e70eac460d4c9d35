"""`adledger loadtest send`: traffic into a deployment's own topics."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, out, out_json
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.pipeline.settings import Settings


@options.deployment("source")
def send(
    given: options.Deployment,
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A name (`loadtest list`) or a .toml file.")],
    *,
    rate: Annotated[float | None, typer.Option("--rate", min=1, metavar="R", help="Events a second.")] = None,
    duration: Annotated[str | None, typer.Option("--duration", metavar="D", help="30s, 5m ...; the warm-up comes first.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="S", help="Seed (default: the time, so that each send has different events).")] = None,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Send a profile's traffic into a deployment's own topics, to try it out.

    The deployment counts and bills it like any other traffic, so don't use it in production. Nothing is verified; `loadtest
    run` has its own topics, tables and verification.

    \b
    Examples:
      adledger loadtest send steady-day --source kafka://localhost:9092 --rate 2000 --duration 5m
      adledger loadtest send click-farm --rate 500 --duration 1m --config adledger.toml
    """
    from adledger.loadtest.profiles import files as profile_files
    from adledger.loadtest.profiles.profile import seconds_of
    from adledger.loadtest.runner.send import send as send_profile

    settings = given.settings
    began = time.monotonic()
    sent = send_profile(
        profile_files.load(profile),
        settings,
        partitions=_partitions(settings),
        rate=rate,
        seconds=None if duration is None else seconds_of(duration),
        seed=int(time.time()) if seed is None else seed,
        progress=lambda records: err(f"sent {records:,}"),
    )
    seconds = time.monotonic() - began
    if as_json:
        out_json({"records": sent, "seconds": seconds})
    else:
        out(f"{sent:,} records in {seconds:.1f} s, to {', '.join(settings.topics)}")


def _partitions(settings: "Settings") -> int:
    import asyncio

    from adledger.pipeline.addresses import KafkaAddress
    from adledger.pipeline.log.kafka_admin.rights import Role
    from adledger.pipeline.log.kafka_admin.topics import require_fit_topics

    if not isinstance(settings.source, KafkaAddress):
        raise UsageError(
            f"source = {settings.source}: traffic is sent to Kafka only",
            remedy="use --source kafka://HOST:PORT",
        )
    counts = {
        facts.name: facts.partitions
        for facts in asyncio.run(require_fit_topics(settings, Role.PRODUCER)).topics
    }
    if len(settings.topics) != 2:
        raise UsageError(
            "traffic needs two topics, impressions and clicks", remedy="use --set topics=IMPRESSIONS,CLICKS"
        )
    return counts[settings.topics[0]]
