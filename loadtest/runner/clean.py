"""Removes exactly what a run created: its database, topics, group, log and servers' data; its folder only on request."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DeleteGroupsRequest

from adledger.loadtest.results.run_folder import RUN, Run, RunFolder
from adledger.loadtest.runner.target import names_of, tables_of
from adledger.pipeline.addresses import FilesAddress, parse_source
from adledger.pipeline.errors import LogError, UsageError
from adledger.pipeline.log.files.manifest import read_manifest
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.topics import kafka_options
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import find

TIMEOUT_MS = 30_000
SESSION_SECONDS_MAX = 75
"""Faust's members have a minute."""
POLL_SECONDS = 0.5

_GROUP = 0  # the type of coordinator lookup
_UNANSWERED = errors.UnknownError.errno
_GONE = {0, errors.UnknownTopicOrPartitionError.errno, errors.GroupIdNotFound.errno}


def clean(folder: RunFolder, *, clickhouse: str = "", everything: bool = False) -> list[str]:
    """Remove what a run (and its steps) created; `everything`: its folder too. Returns what was removed, in words.

    Raises UsageError where the folder's names are not a run's own, SinkError, LogError.
    """
    removed = []
    for step in folder.summary().steps if folder.ended else ():
        beside = RunFolder(folder.path.with_name(step.run_id))
        if (beside.path / RUN).is_file():
            removed += clean(beside, clickhouse=clickhouse, everything=everything)
    run = folder.run()
    if run.names != names_of(run.id):
        raise UsageError(
            f"{folder.path}: its names don't belong to the run {run.id}, so nothing is removed",
            remedy="restore run.json, or remove its database and topics by hand",
        )
    if run.own_servers:
        removed += _servers_data(folder.path)
    else:
        removed += [_database(run, folder.path, clickhouse), *_log(run)]
    if everything:
        shutil.rmtree(folder.path)
        removed.append(f"folder {folder.path}")
    return removed


def _servers_data(folder: Path) -> list[str]:
    if find(folder / "clickhouse") is not None:
        raise UsageError(
            f"{folder}: its ClickHouse is running, so the run has not ended", remedy="end it first: Ctrl-C"
        )
    removed = []
    for name in ("clickhouse", "broker"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
            removed.append(f"data of its own {name}")
    return removed


def _database(run: Run, folder: Path, clickhouse: str) -> str:
    with tables_of(run, folder, clickhouse) as address:
        client = connect(address)
        try:
            client.execute(f"DROP DATABASE IF EXISTS {run.names.database} SYNC")
        finally:
            client.disconnect()
    return f"database {run.names.database}"


def _log(run: Run) -> list[str]:
    source = parse_source(run.source)
    if isinstance(source, FilesAddress):
        directory = source.directory
        if (
            not directory.exists()
            or tuple(topic.name for topic in read_manifest(directory).topics) != run.names.topics
        ):
            return []
        shutil.rmtree(directory)
        return [f"log {directory}"]
    where: dict[str, Any] = {"source": source}
    asyncio.run(_kafka(run, Settings(**where)))
    return [
        f"topics {', '.join((*run.names.topics, run.names.rollups_topic))}",
        f"group {run.names.group} and its workers' pages'",
    ]


async def _kafka(run: Run, settings: Settings) -> None:
    admin = AIOKafkaAdminClient(**kafka_options(settings))
    await admin.start()
    try:
        deleted = await admin.delete_topics([*run.names.topics, run.names.rollups_topic], TIMEOUT_MS)
        groups = [str(group[0]) for group in await admin.list_consumer_groups()]
    finally:
        await admin.close()
    refused = {name: code for name, code in deleted.topic_error_codes if code not in _GONE}
    pages = f"{run.names.group}-pages-"  # each worker's pages have a group of their own
    for group in groups:
        if group == run.names.group or group.startswith(pages):
            code = await _deleted(group, settings)
            refused |= {group: code} if code not in _GONE else {}
    if refused:
        failures = ", ".join(f"{name}: {errors.for_code(code).__name__}" for name, code in refused.items())
        raise LogError(f"Kafka did not remove {failures}", remedy="stop the run's workers, and clean again")


async def _deleted(group: str, settings: Settings) -> int:
    """Delete a group and return Kafka's code; a killed member counts until its session expires."""
    last = time.monotonic() + SESSION_SECONDS_MAX
    async with connected(kafka_options(settings)) as client:
        while True:
            node = await client.coordinator_lookup(_GROUP, group)
            response = await client.send(node, DeleteGroupsRequest([group]))
            code = next((code for name, code in response.results if name == group), _UNANSWERED)
            if code != errors.NonEmptyGroup.errno or time.monotonic() > last:
                return int(code)
            await asyncio.sleep(POLL_SECONDS)
