"""Which worker owns a lane and what it does: from the members' data in the group, and from their pages."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from adledger.pipeline.cli.lane_output import merged
from adledger.pipeline.control import owners
from adledger.pipeline.control.owners import Owner, Owners, lane_owners, pages_of
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.log.kafka.assignor import LaneAssignor
from adledger.pipeline.log.kafka_admin.group_facts import GroupMember
from adledger.pipeline.log.kafka_admin.worker_info import NO_INFO, WorkerInfo, decode_worker_info
from adledger.pipeline.settings import Settings

LANES = {
    "lanes": [
        {"lane": 2, "phase": "rebuilding", "since": "2026-01-01T00:00:00Z", "detail": "7 of about 9 ids"}
    ]
}
Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def pages(handler: Handler) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/lanes", handler)
    async with TestServer(application, host="127.0.0.1") as server:
        yield f"http://0.0.0.0:{server.port}/"


def member(url: str, *lanes: int) -> GroupMember:
    return GroupMember("adledger", "/127.0.0.1", lanes, WorkerInfo("chi-07:4121", url))


def test_worker_info_is_in_the_claim():
    """Worker info travels with the claim at every join; user data of other programs and releases has none."""
    info = WorkerInfo("chi-07:4121", "http://0.0.0.0:6066/")
    assert decode_worker_info(LaneAssignor(info=info).metadata(["t"]).user_data) == info
    for other in (b"", None, b"\x00\xff", b"[]", b"7", LaneAssignor().metadata(["t"]).user_data):
        assert decode_worker_info(other) == NO_INFO


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("http://0.0.0.0:6066/", "/10.1.2.3", "http://10.1.2.3:6066/"),
        ("http://[::]:6066/", "chi-07/fd00::7", "http://[fd00::7]:6066/"),
        ("http://127.0.0.1:6067/", "/10.1.2.3", "http://127.0.0.1:6067/"),
        ("", "/10.1.2.3", ""),
        ("file:///etc/passwd", "/10.1.2.3", ""),
    ],
)
def test_pages_are_at_the_address_that_the_broker_saw(url: str, host: str, expected: str):
    """A wildcard becomes the member's address, a named one is used, and an invalid one is none."""
    assert pages_of(GroupMember("adledger", host, (), WorkerInfo("w", url))) == expected


async def test_the_pages_say_what_a_lane_does():
    """They have the phase and its progress; a lane that the worker does not own yet is reported as unknown."""

    async def lanes(_: web.Request) -> web.Response:
        return web.json_response(LANES)

    async with pages(lanes) as url:
        found = await owners._lanes_of(member(url, 2, 3))
    assert found[2].worker == found[3].worker == "chi-07:4121"
    assert (found[2].phase, found[2].detail) == ("rebuilding", "7 of about 9 ids")
    assert (found[3].phase, found[3].detail) == ("", "the worker does not have it yet")


async def never(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def nonsense(_: web.Request) -> web.Response:
    return web.Response(text="<html>")


async def of_another_release(_: web.Request) -> web.Response:
    raise web.HTTPNotFound


@pytest.mark.parametrize("handler", [never, nonsense, of_another_release])
async def test_pages_that_do_not_answer_cost_nothing_else(handler: Handler, monkeypatch: pytest.MonkeyPatch):
    """The owner is still named, its activity is unknown, and the reason is given."""
    monkeypatch.setattr(owners, "PAGES_SECONDS_MAX", 0.2)
    async with pages(handler) as url:
        found = await owners._lanes_of(member(url, 2))
    assert (found[2].worker, found[2].phase) == ("chi-07:4121", "")
    assert "pages don't answer" in found[2].detail


async def test_a_worker_without_pages_and_an_older_release(unused_tcp_port: int):
    """The group names the owner, and what is unknown is reported as such."""
    assert (await owners._lanes_of(member("", 1)))[1] == Owner(
        "chi-07:4121", detail="the worker has no pages"
    )
    old = await owners._lanes_of(GroupMember("adledger", "/10.1.2.3", (1,)))
    assert old[1].worker == "adledger at 10.1.2.3"
    gone = await owners._lanes_of(member(f"http://0.0.0.0:{unused_tcp_port}/", 1))
    assert "pages don't answer" in gone[1].detail


async def test_another_machines_loopback_is_not_queried_here():
    """This machine's loopback would answer for another worker, so nothing is queried and the reason is given."""

    async def lanes(_: web.Request) -> web.Response:
        return web.json_response(LANES)

    async with pages(lanes) as url:
        here = url.replace("0.0.0.0", "127.0.0.1")
        elsewhere = await owners._lanes_of(member(here, 2))
        own = WorkerInfo(f"{socket.gethostname()}:4121", here)
        ours = await owners._lanes_of(GroupMember("adledger", "/127.0.0.1", (2,), own))
    assert (elsewhere[2].phase, ours[2].phase) == ("", "rebuilding")
    assert "only from its own machine" in elsewhere[2].detail
    assert "web_host" in elsewhere[2].detail


async def test_a_log_in_a_directory_has_one_owner(tmp_path: Path):
    """The process that holds the group's lock owns every lane; when it has left there is no owner."""
    with open_log(tmp_path / "log", 3):
        pass
    settings = Settings(source=f"files:{tmp_path / 'log'}", clickhouse=f"embedded:{tmp_path / 'ch'}")
    assert await lane_owners(settings) == Owners("", 0, {})

    class NoLanes:
        async def lanes_assigned(self, assignments: object) -> None: ...

        async def lanes_revoked(self, lanes: object) -> None: ...

    source = FilesSource(tmp_path / "log", settings.group)
    await source.join(NoLanes())
    found = await lane_owners(settings)
    await source.leave()
    assert found.workers == 1
    assert {lane: owner.worker.rpartition(":")[2] for lane, owner in found.by_lane.items()} == dict.fromkeys(
        range(3), str(os.getpid())
    )
    assert (await lane_owners(settings)).workers == 0


def test_common_messages_of_lanes_are_merged():
    """They carry the lanes' numbers; a message of one lane alone is unchanged."""
    messages = [(number, f"lane {number}: partitions were added") for number in (0, 1, 12)]
    assert merged([*messages, (3, "lane 3: of batch 7 there are 2")]) == [
        "lanes 0, 1, 12: partitions were added", "lane 3: of batch 7 there are 2",
    ]  # fmt: skip
