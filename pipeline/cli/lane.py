"""`adledger lane`: the state of lanes, and operator overrides for those that are halted."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.lane_output import (
    as_its_owner_says,
    describe,
    lane_json,
    override_json,
    print_lanes,
)
from adledger.pipeline.cli.lane_positions import offsets_to, position_to_leave
from adledger.pipeline.cli.output import err, out, out_json, quiet_kafka_client
from adledger.pipeline.cli.remedies import Flags, command_flags, complete, completed
from adledger.pipeline.errors import AdledgerError, UsageError

if TYPE_CHECKING:
    from adledger.pipeline.control.owners import Owners
    from adledger.pipeline.lanes.inspect import LaneLook
    from adledger.pipeline.settings import Settings
    from adledger.sinks.overrides import LaneOverride

lane = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

LaneArgument = Annotated[int, typer.Argument(min=0, metavar="LANE", help="The lane: a partition number.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; stored with the override.")]
Author = Annotated[
    str | None, typer.Option("--author", metavar="NAME", help="Who (default: the login name).")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the override, write nothing.")]
Execute = Annotated[bool, typer.Option("--execute", help="Write the override.")]


@lane.callback()
def root() -> None:
    """Show lanes, and override what halts one.

    \b
    Examples:
      adledger lane status
      adledger lane skip 3 --reason "topic retention took a day, ticket 812" --dry-run
      adledger lane resolve 3 --reason "half a batch after the disk was full" --execute
    """


@lane.command("status")
@options.deployment("source", "clickhouse", "database", "group")
def status(
    given: options.Deployment,
    lane_no: Annotated[int | None, typer.Argument(min=0, metavar="[LANE]", help="Only this lane.")] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show each lane's position, owner and phase, and why it is halted.

    For each lane: the ledger's end, the intended batch and its rows in the tables, the log's bounds and the lag; the worker that owns it, from the group, and its phase, from that worker's pages (rebuilding and how far, running, idle, waiting, in_doubt, halted). If a lane is or would be halted: the reason, and the command that resolves it; the exit code is then 1.

    \b
    Examples:
      adledger lane status
      adledger lane status 3 --json | jq '.lanes[0].trouble'
      adledger lane status --json | jq '.lanes[] | select(.owner.phase != "running") | {lane, owner}'
    """
    deployment = _deployment(given)
    settings = deployment.settings
    owners = _owners(deployment)
    looks = [as_its_owner_says(look, owners.of(look.lane)) for look in _look(deployment, lane_no)]
    looks = [replace(look, remedy=complete(look.remedy, deployment.flags)) for look in looks]
    if as_json:
        group_now = {"name": settings.group, "state": owners.state or None, "workers": owners.workers}
        lanes = [lane_json(settings, look, owners.of(look.lane)) for look in looks]
        out_json({"group": group_now, "lanes": lanes})
    else:
        print_lanes(looks, owners)
    if any(look.trouble for look in looks):
        raise typer.Exit(1)


@lane.command("skip")
@options.deployment("source", "clickhouse", "database", "group")
def skip(
    given: options.Deployment,
    lane_no: LaneArgument,
    *,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="TOPIC=OFFSET", help="Go on there; `end` is the log's end. Repeatable."),
    ] = None,
    reason: Reason,
    author: Author = None,
    dry_run: DryRun = False,
    execute: Execute = False,
    as_json: options.Json = False,
) -> None:
    """Give up offsets that the log no longer has, or that a lane can't get past.

    Without --to, what halts the lane decides: offsets that retention removed; a log that was truncated, a topic that was recreated, on which it continues. With --to, the lane goes on at the named offsets, and everything between the ledger's end and them is given up: for a damaged batch, a batch too large for the memory, or a bug. The lane's owner applies the override within seconds, if the lane is still where it was. The gap becomes a ledger row, and its offsets are counted as lost.

    \b
    Examples:
      adledger lane skip 3 --reason "retention was an hour too short" --dry-run
      adledger lane skip 3 --reason "retention was an hour too short" --author mia --execute
      adledger lane skip 3 --to ad.clicks=81920 --reason "damaged batch, ticket 813" --execute
      adledger lane skip 3 --to ad.impressions=end --to ad.clicks=end --reason "a test's records" --dry-run
    """
    deployment = _deployment(given)
    who, executed = (reason, author), _executes(dry_run, execute)
    if to:
        _give_up(deployment, lane_no, to, who, executed, as_json=as_json)
    else:
        _override_one(deployment, "skip", lane_no, who, executed, as_json=as_json)


@lane.command("resolve")
@options.deployment("source", "clickhouse", "database", "group")
def resolve(
    given: options.Deployment,
    lane_no: LaneArgument,
    *,
    reason: Reason,
    author: Author = None,
    dry_run: DryRun = False,
    execute: Execute = False,
    as_json: options.Json = False,
) -> None:
    """Resolve a lane whose tables or commits disagree with the ledger.

    If the tables hold part of a batch that has no ledger row, its rows are removed and the batch is written again. If the group's commits are gone or don't match, the lane continues from the ledger's end. A batch in the ledger is never touched.

    \b
    Examples:
      adledger lane resolve 3 --reason "half a batch after the disk was full" --dry-run
      adledger lane resolve 3 --reason "offsets expired in the outage" --execute
    """
    deployment = _deployment(given)
    _override_one(
        deployment, "resolve", lane_no, (reason, author), _executes(dry_run, execute), as_json=as_json
    )


@lane.command("repartition")
@options.deployment("source", "clickhouse", "database", "group")
def repartition(
    given: options.Deployment,
    *,
    reason: Reason,
    author: Author = None,
    dry_run: DryRun = False,
    execute: Execute = False,
    as_json: options.Json = False,
) -> None:
    """Switch every lane to more partitions.

    The new number must be a multiple of the old one, so that each new lane's users come from one old lane, whose dedupe window it takes over. Stop the producers first: docs/partitions.md has the procedure.

    \b
    Examples:
      adledger lane repartition --reason "16 to 32 partitions" --dry-run
      adledger lane repartition --reason "16 to 32 partitions" --execute
    """
    deployment = _deployment(given)
    executed = _executes(dry_run, execute)
    looks = _look(deployment, None)
    others = [look for look in looks if look.trouble and look.command != "repartition"]
    if others:
        raise AdledgerError(
            f"{len(others)} lanes are halted for another reason. {others[0].trouble}",
            remedy=others[0].remedy,
        )
    wanted = [look for look in looks if look.command == "repartition"]
    if not wanted:
        raise AdledgerError(
            "there is nothing to repartition: the ledger has the log's number of partitions",
            remedy="add the partitions first: kafka-topics.sh --alter --topic TOPIC --partitions N",
        )
    _override(deployment.settings, wanted, (reason, author), executed, as_json=as_json)


def _executes(dry_run: bool, execute: bool) -> bool:  # noqa: FBT001 - two flags of which one is given
    if dry_run == execute:
        raise UsageError(
            "neither or both of --dry-run and --execute are set",
            remedy="use --dry-run to see the override, or --execute to write it",
        )
    return execute


@dataclass(frozen=True, slots=True)
class _Deployment:
    """The settings of a deployment, and the flags that remedies repeat."""

    settings: "Settings"
    flags: Flags


def _deployment(given: options.Deployment) -> _Deployment:
    loaded = given.load()
    return _Deployment(loaded.settings, command_flags(loaded, given.config_file))


def _owners(deployment: _Deployment) -> "Owners":
    import asyncio

    from adledger.pipeline.control.owners import lane_owners

    quiet_kafka_client()
    with completed(deployment.flags):
        return asyncio.run(lane_owners(deployment.settings))


def _look(deployment: _Deployment, lane_no: int | None, *, any_rows: bool = False) -> list["LaneLook"]:
    """Return the lanes, with complete commands in their remedies."""
    import asyncio

    from adledger.pipeline.lanes.inspect import check_lane, inspected, look_at

    async def look(server: Any) -> list["LaneLook"]:
        async with inspected(settings, server) as environment:
            if lane_no is not None:
                check_lane(environment.topology, lane_no)
            lanes = range(environment.topology.partitions) if lane_no is None else [lane_no]
            return [await look_at(environment, number, any_rows=any_rows) for number in lanes]

    settings, flags = deployment.settings, deployment.flags
    with completed(flags), connect.server(settings) as server:
        looks = asyncio.run(look(server))
    return [replace(look, remedy=complete(look.remedy, flags)) for look in looks]


def _override_one(
    deployment: _Deployment,
    command: str,
    lane_no: int,
    who: tuple[str, str | None],
    executed: bool,  # noqa: FBT001 - passed on
    *,
    as_json: bool,
) -> None:
    # A halted lane prints its command at once: `resolve` does not wait until no owner can settle the batch any more.
    (look,) = _look(deployment, lane_no, any_rows=command == "resolve")
    if look.command != command or look.proposal is None:
        raise AdledgerError(
            f"there is nothing to {command}: {look.trouble or f'lane {lane_no} is not halted'}",
            remedy=look.remedy or complete(f"adledger lane status {lane_no}", deployment.flags),
        )
    _override(deployment.settings, [look], who, executed, as_json=as_json)


def _give_up(
    deployment: _Deployment,
    lane_no: int,
    to: Sequence[str],
    who: tuple[str, str | None],
    executed: bool,  # noqa: FBT001 - passed on
    *,
    as_json: bool,
) -> None:
    from adledger.pipeline.lanes.overrides import give_up

    (look,) = _look(deployment, lane_no)
    at = position_to_leave(look, _owners(deployment).of(lane_no))
    given_up = give_up(at, offsets_to(look, at, to), look.leftovers)
    _override(deployment.settings, [replace(look, proposal=given_up)], who, executed, as_json=as_json)


def _override(
    settings: "Settings",
    looks: Sequence["LaneLook"],
    who: tuple[str, str | None],
    executed: bool,  # noqa: FBT001 - passed on
    *,
    as_json: bool,
) -> None:
    """Write the overrides that are not stored yet, or show them."""
    reason, author = who
    if not reason.strip():
        raise UsageError("--reason is empty", remedy="give a reason: it is stored with the override")
    overrides = [
        replace(look.proposal, reason=reason, author=author or getpass.getuser())
        for look in looks
        if look.proposal is not None and not look.overridden
    ]
    if executed and overrides:
        _write(settings, overrides)
    if as_json:
        out_json(
            {"executed": executed, "overrides": [override_json(settings, override) for override in overrides]}
        )
        return
    for override in overrides:
        out(f"lane {override.lane}, batch {override.batch_no}: {describe(settings, override)}")
    already = len(looks) - len(overrides)
    if already:
        err(f"{already} of these lanes have this override already: their worker applies it")
    if executed and overrides:
        err("written: running workers check every 5 s, others when they start; see `adledger lane status`")
    elif overrides:
        err("nothing was written: --execute writes them")


def _write(settings: "Settings", overrides: Sequence["LaneOverride"]) -> None:
    from adledger.sinks.overrides import write_overrides

    with connect.client(settings) as client:
        write_overrides(client, overrides, database=settings.database, cluster=settings.cluster)
