"""Who owns which lane, and what the lane is doing: the coordinator names the owners, their pages have the rest."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from adledger.pipeline.addresses import FilesAddress
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.group_facts import GroupMember, describe_group
from adledger.pipeline.log.kafka_admin.topics import kafka_options
from adledger.pipeline.settings import Settings

PAGES_SECONDS_MAX = 3.0
"""How long to wait for a worker's pages: a stopped or unreachable worker must not delay the answer about others."""
PAGES_BYTES_MAX = 4 * 1024 * 1024

EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised, not bound
REBALANCING = frozenset({"PreparingRebalance", "CompletingRebalance"})
"""Kafka's words for a group whose members don't all know their lanes yet."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A lane's owner and what the lane is doing: its `phase` (adledger.pipeline.lanes.events.Phase), since when, and details.

    `phase` is "" where it is unknown; `detail` says why. `halt_reason` and `remedy` are a halted lane's, as its owner found them.
    """

    worker: str  # HOST:PID, or Kafka's client id and host if the member sends no worker info
    pages: str = ""  # URL
    phase: str = ""
    since: str = ""  # RFC 3339
    detail: str = ""
    halt_reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Owners:
    """The lanes that have an owner. `state` is Kafka's word for the group, "" for a log in a directory."""

    state: str
    workers: int
    by_lane: Mapping[int, Owner]

    def of(self, lane: int) -> Owner | None:
        """Return a lane's owner."""
        return self.by_lane.get(lane)


async def lane_owners(settings: Settings) -> Owners:
    """Query the coordinator, then all members' pages at once, without joining the group. Raises LogError."""
    if isinstance(settings.source, FilesAddress):
        return _of_files(FilesSource(settings.source.directory, settings.group))
    async with connected(kafka_options(settings)) as client:
        group = await describe_group(client, settings.group)
    by_member = await asyncio.gather(*(_lanes_of(member) for member in group.members))
    by_lane = {lane: owner for lanes in by_member for lane, owner in lanes.items()}
    return Owners(group.state, len(group.members), by_lane)


def pages_of(member: GroupMember) -> str:
    """Return the URL of a member's pages from this machine, or "".

    Pages that listen on every address are expected at the one from which the member connects to the broker.
    """
    url = urlsplit(member.info.pages)
    if not url.hostname or url.scheme != "http":
        return ""
    host = member.host.rpartition("/")[2] if url.hostname in EVERY_ADDRESS else url.hostname
    return f"http://{f'[{host}]' if ':' in host else host}:{url.port or 80}/"


def _on_another_loopback(pages: str, worker: str) -> bool:
    """Whether pages are on the loopback of another machine: what answers at that address here is another worker."""
    host = urlsplit(pages).hostname or ""
    return (host == "localhost" or host.startswith("127.") or host == "::1") and worker.rpartition(":")[
        0
    ] != socket.gethostname()


def _of_files(source: FilesSource) -> Owners:
    holder = source.holder()
    if holder is None:
        return Owners("", 0, {})
    owner = Owner(f"{socket.gethostname()}:{holder}", detail="a worker on files has no pages")
    return Owners("", 1, dict.fromkeys(range(source.topology.partitions), owner))


async def _lanes_of(member: GroupMember) -> dict[int, Owner]:
    """Return a member's lanes, with what its pages say about each."""
    worker = member.info.worker or f"{member.client_id} at {member.host.rpartition('/')[2]}"
    pages = pages_of(member)
    if not pages:
        return dict.fromkeys(member.lanes, Owner(worker, detail="the worker has no pages"))
    if _on_another_loopback(member.info.pages, worker):
        why = f"its pages are reachable only from its own machine: run this there, or set web_host ({pages})"
        return dict.fromkeys(member.lanes, Owner(worker, detail=why))
    try:
        lanes = await _lanes_page(pages)
    except TimeoutError:
        why = f"the worker's pages don't answer within {PAGES_SECONDS_MAX:g} s"
        return dict.fromkeys(member.lanes, Owner(worker, pages, detail=why))
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
        why = f"the worker's pages don't answer: {error or type(error).__name__}"
        return dict.fromkeys(member.lanes, Owner(worker, pages, detail=why))
    unknown = Owner(worker, pages, detail="the worker does not have it yet")
    return {lane: Owner(worker, pages, **lanes[lane]) if lane in lanes else unknown for lane in member.lanes}


async def _lanes_page(pages: str) -> dict[int, dict[str, str]]:
    """Return the lanes on a worker's page. Raises aiohttp's errors; ValueError, KeyError or TypeError if it is no such page."""
    timeout = aiohttp.ClientTimeout(total=PAGES_SECONDS_MAX)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{pages}lanes") as answer:
        answer.raise_for_status()
        body: Any = orjson.loads(await answer.content.read(PAGES_BYTES_MAX))
    return {
        int(lane["lane"]): {name: str(lane[name]) for name in ("phase", "since", "detail")}
        | {name: str(lane.get(name, "")) for name in ("halt_reason", "remedy")}
        for lane in body["lanes"]
    }
