"""`adledger status`: the progress of each lane."""

from typing import TYPE_CHECKING, Any

from adledger.pipeline.addresses import FilesAddress
from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out, out_json, out_table

if TYPE_CHECKING:
    from adledger.pipeline.ledger.status import LaneStatus, LogEnds
    from adledger.pipeline.ledger.totals import Totals
    from adledger.pipeline.settings import Settings


@options.deployment("source", "clickhouse", "database")
def status(
    given: options.Deployment,
    *,
    as_json: options.Json = False,
) -> None:
    """Show the progress of each lane, and the counts by class.

    For each lane: its last batch, its watermark, its positions, and its lag. Lag is the number of offsets in the log that the ledger does not cover yet; it is shown if --source is a files: log.

    \b
    Examples:
      adledger status --source files:data/log --clickhouse embedded:data/clickhouse
      adledger status --json | jq '[.lanes[].lag_records] | add'
    """
    loaded = given.load()
    settings = loaded.settings

    from adledger.pipeline.ledger import queries
    from adledger.pipeline.ledger.status import lane_statuses

    ends = _log_ends(settings)
    tables = queries.TableNames(settings.database, settings.cluster)
    with connect.client(settings) as client:
        lanes = lane_statuses(client, tables, ends)
        totals = queries.totals(client, tables)
    if as_json:
        out_json(_as_json(settings, lanes, totals))
        return
    _print(settings, lanes, totals)


def _log_ends(settings: "Settings") -> "LogEnds | None":
    if not isinstance(settings.source, FilesAddress):
        return None
    from adledger.pipeline.log.files.ends import EndsFile
    from adledger.pipeline.log.files.manifest import read_manifest

    log = settings.source.directory
    ends = EndsFile(log, read_manifest(log)).refresh()
    return [[end.offset for end in partitions] for partitions in ends]


def _as_json(settings: "Settings", lanes: list["LaneStatus"], totals: "Totals") -> dict[str, Any]:
    from adledger.pipeline.ledger.totals import class_summary

    return {
        "lanes": [
            {
                "lane": lane.lane,
                "batch_no": lane.batch_no,
                "clock": lane.clock_text,
                "positions": {_topic(settings, topic): offset for topic, offset in lane.positions.items()},
                "lag_records": lane.lag_records,
            }
            for lane in lanes
        ],
        "records_received": totals.records_received,
        "classes": class_summary(totals),
    }


def _print(settings: "Settings", lanes: list["LaneStatus"], totals: "Totals") -> None:
    from adledger.pipeline.ledger.totals import class_rows

    topics = sorted({topic for lane in lanes for topic in lane.positions})
    out_table(
        ("lane", "batch", "watermark", *(f"{_topic(settings, topic)} at" for topic in topics), "lag"),
        [
            (
                str(lane.lane),
                lane.batch_no,
                lane.clock_text,
                *map(lane.positions.get, topics),
                lane.lag_records,
            )
            for lane in lanes
        ],
    )
    out("")
    out_table(("class", "records", "money", "currency"), class_rows(totals))
    if not lanes:
        err("the ledger is empty: no batch is complete yet")


def _topic(settings: "Settings", topic: int) -> str:
    return settings.topics[topic] if topic < len(settings.topics) else f"topic {topic}"
