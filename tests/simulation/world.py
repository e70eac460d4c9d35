"""What all simulated parts share: the seed's chances, virtual time, the trace, faults and their counts, and wires."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from tests.simulation.loop import Node, SimLoop, current_node

T = TypeVar("T")

FAULTS = (
    "crash", "pause", "zombie", "lost request", "lost reply", "slow request", "slow reply", "server killed",
    "killed inside an insert", "insert outlives its client", "insert refused late", "unknown outcome",
    "part shown later", "lagging replica", "clock jump", "clock drift", "commit lost", "commit reply lost", "commit delayed",
    "commit half done", "commit refused", "commit fenced", "rebalance", "member expired", "static member returned", "joined", "left",
    "duplicate record", "fetched again", "topic idle", "topic lags", "offsets without records", "new release",
    "slow cpu", "retention", "truncated", "overwritten", "overwritten in doubt", "topic recreated", "batch that can't be decoded", "commits expired", "bug in one lane", "no memory for one lane",
)  # fmt: skip
"""Every kind of fault; a test checks that the CI seeds inject each."""


@dataclass(frozen=True, slots=True)
class Chances:
    """Probabilities of what may happen to one request, one await, one second. Drawn once a seed: swarm testing."""

    crash_at_request: float
    pause_at_request: float
    crash_at_step: float
    pause_at_step: float
    lost_request: float
    lost_reply: float
    slow_request: float
    slow_reply: float
    kill_in_insert: float
    long_insert: float
    unavailable: float
    commit_lost: float
    commit_reply_lost: float
    commit_delayed: float
    commit_half: float
    commit_refused: float
    slow_cpu: float
    broken_connection: float

    @classmethod
    def draw(cls, rng: random.Random) -> "Chances":
        """Return chances: about half of the kinds are off in one seed, the others more or less frequent."""
        levels = {f.name: rng.choice((0.0, 0.0, 0.01, 0.04, 0.12)) for f in fields(cls)}
        levels["crash_at_step"] = rng.choice((0.0, 0.0, 0.0003, 0.001))
        levels["pause_at_step"] = rng.choice((0.0, 0.0, 0.0003, 0.001))
        levels["crash_at_request"] = rng.choice((0.0, 0.0, 0.005, 0.02))
        levels["pause_at_request"] = rng.choice((0.0, 0.0, 0.005, 0.02))
        levels["long_insert"] = rng.choice((0.0, 0.0, 0.05, 0.3))
        levels["commit_half"] = rng.choice((0.0, 0.0, 0.03, 0.5))
        levels["unavailable"] /= 2
        return cls(**levels)


QUIET = Chances(*[0.0] * len(fields(Chances)))
"""After the faults have ceased."""


@dataclass(slots=True)
class World:
    """One run. `trace` is None where it is not read."""

    seed: int
    trace: list[str] | None = None
    given_loop: SimLoop | None = None
    rng: random.Random = field(init=False)
    hostile: random.Random = field(init=False)  # separate, so that the rest of a seed stays the same
    defects: random.Random = field(init=False)  # the same
    loop: SimLoop = field(init=False)
    chances: Chances = field(init=False)
    faults: Counter[str] = field(default_factory=Counter)
    on_crash: Callable[[Node], None] = field(default=lambda _: None)
    quiet: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.hostile = random.Random(f"hostile {self.seed}")
        self.defects = random.Random(f"defects {self.seed}")
        self.chances = Chances.draw(self.rng)
        self.loop = self.given_loop or SimLoop(self.rng, self._cpu_seconds)
        self.loop.strike = self._strike_step

    @property
    def now(self) -> float:
        """Virtual seconds since the run began."""
        return self.loop.time()

    def say(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.now:9.3f}  {who:<11} {what}")

    def fault(self, kind: str, who: str, what: str = "") -> None:
        """Count a fault, and trace it."""
        self.faults[kind] += 1
        if self.trace is not None:
            self.trace.append(f"{self.now:9.3f}  {who:<11} !! {kind}{': ' + what if what else ''}")

    def chance(self, p: float) -> bool:
        """Whether something of this probability happens; nothing is drawn where it can't."""
        return p > 0.0 and self.rng.random() < p

    def cease(self) -> None:
        """No faults from now on."""
        self.quiet = True
        self.chances = QUIET

    def _cpu_seconds(self) -> float:
        if self.chance(self.chances.slow_cpu):
            self.fault("slow cpu", who())
            return self.rng.uniform(0.3, 4.0)
        return self.rng.random() * 0.05

    # faults of workers

    def crash(self, node: Node, where: str) -> None:
        """End a node: none of its code runs any more; what it has sent is on its way."""
        self.fault("crash", node.name, where)
        node.dead = True
        self.loop.remove(node)
        self.on_crash(node)

    def pause(self, node: Node, where: str) -> None:
        """Stop a node for a while (SIGSTOP), sometimes for longer than its session."""
        long = self.rng.random() < 0.4
        seconds = self.rng.uniform(6.0, 20.0) if long else self.rng.uniform(0.1, 5.0)
        self.fault("zombie" if long else "pause", node.name, f"{where}, for {seconds:.1f} s")
        node.paused = True
        self.loop.on_network(seconds, self._resume, node)

    def _resume(self, node: Node) -> None:
        node.paused = False
        if not node.dead:
            self.say(node.name, "goes on")

    def _strike_step(self, node: Node) -> None:
        if self.quiet:
            return
        if self.chance(self.chances.crash_at_step):
            self.crash(node, "at an await")
        elif self.chance(self.chances.pause_at_step):
            self.pause(node, "at an await")

    async def point(self, where: str) -> None:
        """A point where the caller's node may end or be stopped."""
        node = current_node()
        if node is None:
            return
        if not node.dead and self.chance(self.chances.crash_at_request):
            self.crash(node, where)
        elif not node.dead and self.chance(self.chances.pause_at_request):
            self.pause(node, where)
            await self.rest(0.0)
        if node.dead:
            await self.loop.create_future()  # forever

    async def rest(self, seconds: float) -> None:
        """Sleep."""
        future = self.loop.create_future()
        self.loop.call_later(seconds, lambda: future.done() or future.set_result(None))
        await future

    # wires

    async def ask(self, answer: Callable[[], T], *, slow: bool = True) -> T:
        """Send a request that is never lost and return its answer: `answer` runs at the server when the request arrives.

        Whatever `answer` raises is raised here.
        """
        future = self.loop.create_future()
        delay = self.latency(self.chances.slow_request if slow else 0.0, "slow request")
        self.loop.on_network(delay, self._serve, answer, future, slow)
        return await future

    def _serve(self, answer: Callable[[], Any], future: Any, slow: bool) -> None:
        back = self.latency(self.chances.slow_reply if slow else 0.0, "slow reply")
        try:
            found = answer()
        except Exception as e:  # noqa: BLE001 - the client's
            self.loop.on_network(back, lambda e=e: future.done() or future.set_exception(e))
        else:
            self.loop.on_network(back, lambda: future.done() or future.set_result(found))

    def latency(self, slow: float = 0.0, kind: str = "") -> float:
        """Return seconds on a wire: about a millisecond, or seconds where it is slow."""
        if slow and self.chance(slow):
            seconds = self.rng.uniform(0.5, 8.0)
            self.fault(kind, "wire", f"{seconds:.1f} s")
            return seconds
        return 0.0005 + self.rng.random() * 0.004


def who() -> str:
    """Return the name of the node that runs now."""
    node = current_node()
    return node.name if node else "network"
