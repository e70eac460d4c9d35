"""A sender: a process that generates some partitions' records and sends them to the log when they are due.

It reads commands from stdin, one line each: its `Task` as JSON; `go MS`, when the load begins; `stop`. It writes to stdout, one
JSON object a line: `ready`, a `SenderReport` four times a second, and `ended`. When stdin ends it stops: its runner is gone.

The loop is open. A tick is sent at its time, whatever happened to earlier ones; where the log doesn't accept it in time,
it is sent late, and the delay counts as latency, which is measured from when a record was due.
"""

import asyncio
import dataclasses
import gc
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

from adledger.loadtest.runner.outlet import Outlet, now_ms, outlet
from adledger.loadtest.runner.schedule import Schedule
from adledger.loadtest.runner.ticks import Tick, cut
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.settings import Settings

REPORT_SECONDS = 0.25
GRACE_SECONDS = 1.0
"""How long after the end of the schedule late events may still be sent; then they are dropped."""
CHUNK_SECONDS = 2.0
CHUNK_SLOTS_LEAST, CHUNK_SLOTS_MOST = 2_048, 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A sender's task: `partitions` of the model's traffic, by the schedule, to the settings' source."""

    model: TrafficModel
    schedule: Schedule
    partitions: tuple[int, ...]
    settings: dict[str, Any]

    def to_json(self) -> str:
        """Return it as a line."""
        return json.dumps({
            "model": json.loads(self.model.to_json()), "schedule": dataclasses.asdict(self.schedule),
            "partitions": self.partitions, "settings": self.settings,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Return what `to_json` wrote."""
        values = json.loads(text)
        return cls(
            model=TrafficModel.from_json(json.dumps(values["model"])),
            schedule=Schedule(**values["schedule"]),
            partitions=tuple(values["partitions"]),
            settings=values["settings"],
        )


@dataclass(slots=True)
class SenderReport:
    """What happened since the last report.

    `ticks`: (due ms, sent ms, records). `acks`: as outlet.Ack. `generator_behind_ms`: the most that the generator
    itself was late, without waits for the log. `sent_until_ms`: exactly the records planned before it were sent.
    """

    ticks: list[tuple[int, int, int]] = field(default_factory=list)
    acks: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    generator_behind_ms: int = 0
    sent_until_ms: int = 0


class Sender:
    """Sends a task's ticks. One event loop; a thread generates the next chunk meanwhile."""

    def __init__(self, task: Task, log: Outlet) -> None:
        self._task = task
        self._log = log
        self._ticks = self._chunks()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="generator")
        self._report = SenderReport(sent_until_ms=task.schedule.start_ms)
        self._behind_ms = 0.0
        self.go: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()

    async def run(self, ready: Any) -> None:
        """Make the first chunk, call `ready`, wait for the go, and send to the end. Raises LogError."""
        loop = asyncio.get_running_loop()
        upcoming: asyncio.Future[list[Tick] | None] = loop.run_in_executor(self._pool, self._next_chunk)
        await asyncio.wait([upcoming])
        ready()
        stopped = asyncio.ensure_future(self.stopped.wait())
        either: list[asyncio.Future[Any]] = [self.go, stopped]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        while not self.stopped.is_set():
            asked_ms = now_ms()
            ticks = await upcoming
            if ticks is None:
                break
            waited_ms = now_ms() - asked_ms
            upcoming = loop.run_in_executor(self._pool, self._next_chunk)
            for tick in ticks:
                if not await self._send(tick, self.go.result(), waited_ms):
                    self.stopped.set()
                    break
                waited_ms = 0
        stopped.cancel()
        await asyncio.wait([upcoming])
        self._pool.shutdown()
        await self._log.flush()

    def take_report(self) -> SenderReport:
        """Return the report since the last one."""
        report, self._report = self._report, SenderReport(sent_until_ms=self._report.sent_until_ms)
        report.acks = [dataclasses.astuple(ack) for ack in self._log.acks()]
        return report

    async def _send(self, tick: Tick, go_ms: int, waited_ms: int) -> bool:
        """Send a tick when it is due; return False where it is too late, or the sender was stopped."""
        schedule = self._task.schedule
        due_ms = schedule.due_ms(tick.until_ms, go_ms) if schedule.speed else max(now_ms(), go_ms)
        last_ms = go_ms + (schedule.total_seconds + (GRACE_SECONDS if schedule.speed else 0)) * 1_000
        while (early_ms := due_ms - now_ms()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), early_ms / 1_000)
            if self.stopped.is_set():
                return False
        late_ms = now_ms() - due_ms
        # The generator's own delay is at most the time spent waiting for it, and ends once ticks are on time again.
        self._behind_ms = min(late_ms, self._behind_ms + waited_ms) if schedule.speed else 0
        if now_ms() > last_ms or self.stopped.is_set():
            return False
        await self._log.send(tick, due_ms)
        self._report.ticks.append((due_ms, now_ms(), tick.count))
        self._report.generator_behind_ms = max(self._report.generator_behind_ms, round(self._behind_ms))
        self._report.sent_until_ms = tick.until_ms
        return True

    def _next_chunk(self) -> list[Tick] | None:
        return next(self._ticks, None)

    def _chunks(self) -> Iterator[list[Tick]]:
        task = self._task
        per_second = task.model.events / task.schedule.total_seconds
        slots = int(min(CHUNK_SLOTS_MOST, max(CHUNK_SLOTS_LEAST, per_second * CHUNK_SECONDS)))
        generator = Generator(task.model, partitions=task.partitions, chunk_slots=slots)
        for chunk in generator.chunks():
            yield list(cut(chunk, task.schedule, encode=self._log.encodes))


async def work(task: Task, commands: "asyncio.Queue[str]") -> None:
    """Do a task, as the module says."""
    async with outlet(Settings(**task.settings)) as log:
        sender = Sender(task, log)
        listening = asyncio.ensure_future(_listen(sender, commands))
        reporting = asyncio.ensure_future(_report(sender))
        try:
            await sender.run(lambda: say(ready=True))
        finally:
            listening.cancel()
            reporting.cancel()
            say(report=dataclasses.asdict(sender.take_report()))


def say(**what: Any) -> None:
    """Write a line to the runner."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _report(sender: Sender) -> None:
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        say(report=dataclasses.asdict(sender.take_report()))


async def _listen(sender: Sender, commands: "asyncio.Queue[str]") -> None:
    while True:
        line = await commands.get()
        if line.startswith("go "):
            sender.go.set_result(int(line.removeprefix("go ")))
        else:  # stop, or the end of stdin
            sender.stopped.set()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    task = Task.from_json((await reader.readline()).decode())
    commands: asyncio.Queue[str] = asyncio.Queue()

    async def read() -> None:
        while line := await reader.readline():
            commands.put_nowait(line.decode().strip())
        commands.put_nowait("stop")

    reading = asyncio.ensure_future(read())
    try:
        await work(task, commands)
        say(ended=True, failure=None)
    except AdledgerError as error:
        say(ended=True, failure=str(error))
    finally:
        reading.cancel()


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(_main())
