"""`adledger lane`: what lanes stand on, and a person's orders to those that stand still."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.lane_output import lane_json, order_json, print_lanes, told
from adledger.pipeline.cli.output import err, out, out_json, quiet_kafka_client
from adledger.pipeline.cli.remedies import Flags, command_flags, complete, completed
from adledger.pipeline.errors import AdledgerError, UsageError

if TYPE_CHECKING:
    from adledger.pipeline.control.owners import Owners
    from adledger.pipeline.lanes.inspect import LaneLook
    from adledger.pipeline.settings import Settings
    from adledger.sinks.orders import LaneOrder

lane = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

LaneArgument = Annotated[int, typer.Argument(min=0, metavar="LANE", help="The lane: a partition number.")]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the order for ever.")
]
Author = Annotated[str | None, typer.Option("--author", metavar="NAME", help="Who; default: the login name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be ordered.")]
Execute = Annotated[bool, typer.Option("--execute", help="Order it.")]


@lane.callback()
def root() -> None:
    """Look at lanes; order what one that stands still shall do.

    \b
    Examples:
      adledger lane status
      adledger lane skip 3 --reason "topic retention took a day, ticket 812" --dry-run
      adledger lane resolve 3 --reason "half a batch after the disk was full" --execute
    """


@lane.command("status")
def status(
    lane_no: Annotated[int | None, typer.Argument(min=0, metavar="[LANE]", help="Only this lane.")] = None,
    *,
    source: options.Source = None,
    clickhouse: options.ClickHouse = None,
    database: options.Database = None,
    group: options.Group = None,
    config_file: options.Config = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Show where each lane stands, who has it and what it does, and why one stands still.

    The ledger's end, the batch that is intended, what the tables hold of it, the log's bounds, the lag; the worker that owns the lane, by the group, and what it does, by that worker's pages (rebuilding and how far, running, idle, waiting, in doubt, stopped); and where something is wrong, what it is and the command that orders what to do. Exit code 1 where a lane would stand still.

    \b
    Examples:
      adledger lane status
      adledger lane status 3 --json | jq '.lanes[0].trouble'
      adledger lane status --json | jq '.lanes[] | select(.owner.phase != "running") | {lane, owner}'
    """
    deployment = _deployment(
        config_file, assignments, source=source, clickhouse=clickhouse, database=database, group=group
    )
    settings = deployment.settings
    owners = _owners(deployment)
    looks = _look(deployment, lane_no)
    if as_json:
        group_now = {"name": settings.group, "state": owners.state or None, "workers": owners.workers}
        lanes = [lane_json(settings, look, owners.of(look.lane)) for look in looks]
        out_json({"group": group_now, "lanes": lanes})
    else:
        print_lanes(looks, owners)
    if any(look.trouble for look in looks):
        raise typer.Exit(1)


@lane.command("skip")
def skip(
    lane_no: LaneArgument,
    *,
    reason: Reason,
    author: Author = None,
    dry_run: DryRun = False,
    execute: Execute = False,
    source: options.Source = None,
    clickhouse: options.ClickHouse = None,
    database: options.Database = None,
    group: options.Group = None,
    config_file: options.Config = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Give up offsets that the log no longer has.

    Also: go over to a log that was truncated or a topic that was made anew. The lane's owner carries the order out within seconds, if it still fits what the lane finds; the gap is then a row of the ledger, its offsets counted as lost.

    \b
    Examples:
      adledger lane skip 3 --reason "retention was an hour too short" --dry-run
      adledger lane skip 3 --reason "retention was an hour too short" --author mia --execute
    """
    deployment = _deployment(
        config_file, assignments, source=source, clickhouse=clickhouse, database=database, group=group
    )
    _order_one(deployment, "skip", lane_no, (reason, author), _executes(dry_run, execute), as_json=as_json)


@lane.command("resolve")
def resolve(
    lane_no: LaneArgument,
    *,
    reason: Reason,
    author: Author = None,
    dry_run: DryRun = False,
    execute: Execute = False,
    source: options.Source = None,
    clickhouse: options.ClickHouse = None,
    database: options.Database = None,
    group: options.Group = None,
    config_file: options.Config = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Let a lane go on whose tables or commits don't agree with the ledger.

    Where the tables hold some of a batch that has no ledger row, the rows are removed and the batch is written again. Where the group's commits are gone or don't fit, the lane goes on from the ledger's end. A batch of the ledger is never touched.

    \b
    Examples:
      adledger lane resolve 3 --reason "half a batch after the disk was full" --dry-run
      adledger lane resolve 3 --reason "offsets expired in the outage" --execute
    """
    deployment = _deployment(
        config_file, assignments, source=source, clickhouse=clickhouse, database=database, group=group
    )
    _order_one(deployment, "resolve", lane_no, (reason, author), _executes(dry_run, execute), as_json=as_json)


@lane.command("barrier")
def barrier(
    *,
    reason: Reason,
    author: Author = None,
    dry_run: DryRun = False,
    execute: Execute = False,
    source: options.Source = None,
    clickhouse: options.ClickHouse = None,
    database: options.Database = None,
    group: options.Group = None,
    config_file: options.Config = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Go over to more partitions, every lane at once.

    The new number must be a multiple of the old one: then each new lane's users were all in one old lane, whose dedupe window it takes over. Stop the producers first; docs/partitions.md has the procedure.

    \b
    Examples:
      adledger lane barrier --reason "16 to 32 partitions" --dry-run
      adledger lane barrier --reason "16 to 32 partitions" --execute
    """
    deployment = _deployment(
        config_file, assignments, source=source, clickhouse=clickhouse, database=database, group=group
    )
    executed = _executes(dry_run, execute)
    looks = _look(deployment, None)
    others = [look for look in looks if look.trouble and look.command != "barrier"]
    if others:
        raise AdledgerError(
            f"{len(others)} lanes stand still for another reason. {others[0].trouble}",
            remedy=others[0].remedy,
        )
    wanted = [look for look in looks if look.command == "barrier"]
    if not wanted:
        raise AdledgerError(
            "no lane needs a barrier: every lane of the ledger is of this log and its partitions",
            remedy="add the partitions first: kafka-topics.sh --alter --topic TOPIC --partitions N",
        )
    _order(deployment.settings, wanted, (reason, author), executed, as_json=as_json)


def _executes(dry_run: bool, execute: bool) -> bool:  # noqa: FBT001 - two flags of which one is given
    if dry_run == execute:
        raise UsageError(
            "what to do is not said", remedy="give --dry-run to see it, or --execute to order it"
        )
    return execute


@dataclass(frozen=True, slots=True)
class _Deployment:
    """What is looked at, and what a remedy's commands need to meet it again."""

    settings: "Settings"
    flags: Flags


def _deployment(config_file: options.Config, assignments: options.Set, **flags: str | None) -> _Deployment:
    loaded = options.load_settings(config_file, assignments, **flags)
    return _Deployment(loaded.settings, command_flags(loaded, config_file))


def _owners(deployment: _Deployment) -> "Owners":
    import asyncio

    from adledger.pipeline.control.owners import lane_owners

    quiet_kafka_client()
    with completed(deployment.flags):
        return asyncio.run(lane_owners(deployment.settings))


def _look(deployment: _Deployment, lane_no: int | None) -> list["LaneLook"]:
    """Return how lanes stand, the commands in what they say complete."""
    import asyncio

    from adledger.pipeline.lanes.inspect import check_lane, inspected, look_at

    async def look(server: Any) -> list["LaneLook"]:
        async with inspected(settings, server) as outside:
            if lane_no is not None:
                check_lane(outside.topology, lane_no)
            lanes = range(outside.topology.partitions) if lane_no is None else [lane_no]
            return [await look_at(outside, number) for number in lanes]

    settings, flags = deployment.settings, deployment.flags
    with completed(flags), connect.server(settings) as server:
        looks = asyncio.run(look(server))
    return [replace(look, remedy=complete(look.remedy, flags)) for look in looks]


def _order_one(
    deployment: _Deployment,
    command: str,
    lane_no: int,
    who: tuple[str, str | None],
    executed: bool,  # noqa: FBT001 - passed on
    *,
    as_json: bool,
) -> None:
    (look,) = _look(deployment, lane_no)
    if look.command != command:
        raise AdledgerError(
            f"there is nothing to {command}: {look.trouble or f'lane {lane_no} stands as it should'}",
            remedy=look.remedy or complete(f"adledger lane status {lane_no}", deployment.flags),
        )
    _order(deployment.settings, [look], who, executed, as_json=as_json)


def _order(
    settings: "Settings",
    looks: Sequence["LaneLook"],
    who: tuple[str, str | None],
    executed: bool,  # noqa: FBT001 - passed on
    *,
    as_json: bool,
) -> None:
    """Write the orders that are not there yet, or show them."""
    reason, author = who
    if not reason.strip():
        raise UsageError("--reason is empty", remedy="say why: it is kept with the order")
    orders = [
        replace(look.proposal, reason=reason, author=author or getpass.getuser())
        for look in looks
        if look.proposal is not None and not look.ordered
    ]
    if executed and orders:
        _write(settings, orders)
    if as_json:
        out_json({"executed": executed, "orders": [order_json(settings, order) for order in orders]})
        return
    for order in orders:
        out(f"lane {order.lane}, batch {order.batch_no}: {told(settings, order)}")
    already = len(looks) - len(orders)
    if already:
        err(f"{already} of these lanes have this order already: a running worker carries it out, or the next")
    if executed and orders:
        err("ordered. A worker that runs looks every 5 s, another when it starts; see `adledger lane status`")
    elif orders:
        err("nothing was ordered yet: --execute does it")


def _write(settings: "Settings", orders: Sequence["LaneOrder"]) -> None:
    from adledger.sinks.orders import insert_sql, order_row

    with connect.client(settings) as client:
        client.execute(
            insert_sql(settings.database),
            [order_row(order) for order in orders],
            settings={"async_insert": 0},
        )
