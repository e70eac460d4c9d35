"""Backpressure: ClickHouse is away for long, while records come on at full rate."""

import os
import signal
import time
from dataclasses import dataclass

from loadtest.chaos.play import Play
from loadtest.chaos.stage import Broken, until

MEMORY_GROWTH_BYTES_MAX = 64 * 1024 * 1024
"""A worker holds a batch a lane, and what one fetch brings, of each topic; the rest is what allocators keep."""
PARTS_MAX = 1_000
LOOK_SECONDS = 0.5
NOTICED_SECONDS_MAX = 60.0
READY_AGAIN_SECONDS_MAX = 90.0


@dataclass(frozen=True, slots=True)
class _Stand:
    """How workers stood: memory by name, and how often lanes moved."""

    memory: dict[str, int]
    moves: int

    @classmethod
    def of(cls, play: Play) -> "_Stand":
        workers = play.deployment.workers
        return cls(
            {w.name: w.memory_bytes() for w in workers},
            sum(w.said().count("lanes given back") for w in workers),
        )


def outage(play: Play) -> str:
    """Kill ClickHouse (-9), and don't start it for `outage_seconds`.

    Memory stays under its limit, the group keeps its members, /readyz says 503; afterwards all that came is caught up.
    """
    servers, deployment = play.servers, play.deployment
    play.until(lambda: len(play.working()) == len(deployment.workers), "lanes of every worker")
    before, sent = _Stand.of(play), play.traffic.records
    server = servers.server
    os.kill(server.pid, signal.SIGKILL)
    server.wait(10)
    last = time.monotonic() + play.outage_seconds
    try:
        noticed = until(
            lambda: all(w.ready() is False for w in deployment.workers),
            "503 of every worker",
            NOTICED_SECONDS_MAX,
        )
        peak = dict(before.memory)
        while time.monotonic() < last:
            now = {w.name: w.memory_bytes() for w in deployment.workers}
            peak = {name: max(size, peak[name]) for name, size in now.items()}
            time.sleep(LOOK_SECONDS)
        unready = [w.ready() is False for w in deployment.workers]
        moved = _Stand.of(play).moves - before.moves
        backlog = play.traffic.records - sent
    finally:
        servers.start_clickhouse()
    took = play.caught_up(play.traffic.records)
    ready = until(
        lambda: all(w.ready() for w in deployment.workers), "200 of every worker", READY_AGAIN_SECONDS_MAX
    )
    parts = deployment.look.parts()
    growth = max(peak[name] - before.memory[name] for name in peak)
    _require(all(unready), f"/readyz said 503 to the end: {unready}")
    _require(moved == 0, f"{moved} times lanes were given back: the group was not kept")
    _require(growth <= MEMORY_GROWTH_BYTES_MAX, f"memory grew by {growth:,} bytes")
    _require(parts <= PARTS_MAX, f"{parts} parts")
    return (
        f"away for {play.outage_seconds:.0f} s: every worker said 503 after {noticed:.1f} s, kept its lanes, memory "
        f"grew by {growth / 2**20:.1f} MB to {max(peak.values()) / 2**20:.0f} MB; {backlog:,} records waited, caught up after {took:.1f} s, "
        f"200 {ready:.1f} s later, {parts} parts"
    )


def _require(holds: bool, what: str) -> None:  # noqa: FBT001 - what was looked at
    if not holds:
        raise Broken(f"backpressure: {what}")
