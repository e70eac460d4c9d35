"""An event loop in virtual time: nothing waits, one seed decides the order, and a node can be frozen or ended.

A *node* is a simulated process. What a node's code schedules belongs to it (by context), in order; between nodes the seed
decides which is next. A dead node's callbacks never run, not even its `finally`; a paused node's are withheld, its timers
included, until it goes on.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Node:
    """One process. `ready` are the callbacks that it would run next."""

    name: str
    dead: bool = False
    paused: bool = False
    ready: deque[asyncio.Handle] = field(default_factory=deque)


_node: contextvars.ContextVar[Node | None] = contextvars.ContextVar("node", default=None)

_NO_NODE = contextvars.Context()


def current_node() -> Node | None:
    """Return the node whose code runs; None on the network: servers, wires, producers."""
    return _node.get()


class _Numbered:
    """Hashed by a number in the order of creation: sets of tasks must not depend on addresses."""

    def __hash__(self) -> int:
        try:
            return self.number
        except AttributeError:  # asyncio enters a task into its set before we could number it
            self.number = next_number()
            return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


_numbers = iter(range(10**18))


def next_number() -> int:
    return next(_numbers)


class SimFuture(_Numbered, asyncio.Future):  # type: ignore[type-arg]
    """A future with a number."""


class SimTask(_Numbered, asyncio.Task):  # type: ignore[type-arg]
    """A task with a number."""


class Stuck(Exception):  # noqa: N818 - an outcome
    """Nothing is left to do, and the run has not ended."""


class SimLoop(asyncio.BaseEventLoop):
    """The loop. `strike(node)` is called before each callback of a worker, and may end or pause it."""

    def __init__(self, rng: random.Random, cpu_seconds: Callable[[], float]) -> None:
        super().__init__()
        self._now = 0.0
        self._rng = rng
        self._cpu_seconds = cpu_seconds
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Node]] = []
        self._order = 0
        self._network = Node("network")
        self._live: list[Node] = [self._network]
        self.tasks: list[SimTask] = []
        self.over = False
        self.steps = 0
        self.strike: Callable[[Node], None] = lambda _: None
        self.worked: Callable[[Node | None, Any], Any] = lambda _, found: found
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._on_exception)
        self.failures: list[str] = []

    # the interface that asyncio requires

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        node = (context.get(_node) if context is not None else _node.get()) or self._network
        if not (self.over or node.dead):
            node.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # there are no threads

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._order += 1
        node = (context.get(_node) if context is not None else _node.get()) or self._network
        if not self.over:
            heapq.heappush(self._timers, (when, self._order, handle, node))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + max(0.0, delay), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is left out when its time comes

    def create_future(self) -> SimFuture:
        return SimFuture(loop=self)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> SimTask:
        task = SimTask(coro, loop=loop, **kwargs)
        self.tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Run a function, whole, after a delay: CPU work takes virtual time, in which others go on."""
        future = self.create_future()
        node = _node.get()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(self.worked(node, func(*args)))
            except Exception as e:  # noqa: BLE001 - passed to the awaiting task
                future.set_exception(e)

        self.call_later(self._cpu_seconds(), work)
        return future

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.over:
            error = context.get("exception")
            self.failures.append(f"{context.get('message')}: {error!r}")

    # nodes

    def add(self, node: Node) -> None:
        self._live.append(node)

    def remove(self, node: Node) -> None:
        self._live.remove(node)
        node.ready.clear()

    def on_node(self, node: Node, callback: Callable[..., Any], *args: Any) -> None:
        """Call as a node; what the callback schedules belongs to the node too."""
        context = contextvars.copy_context()
        context.run(_node.set, node)
        self.call_soon(callback, *args, context=context)

    def on_network(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call after a delay on no node: what is on a wire or on a server goes on when its sender is gone."""
        self.call_later(delay, callback, *args, context=_NO_NODE)

    # running

    def _run_once(self) -> None:
        able = [n for n in self._live if n.ready and not n.paused]
        if not able:
            self._advance()
            return
        node = able[0] if len(able) == 1 else able[int(self._rng.random() * len(able))]
        if node is not self._network:
            self.strike(node)
            if node.dead or node.paused:
                return
        handle = node.ready.popleft()
        self.steps += 1
        if not handle._cancelled:  # type: ignore[attr-defined]
            handle._run()  # type: ignore[attr-defined]

    def _advance(self) -> None:
        """Advance to the next scheduled time."""
        while self._timers and (self._timers[0][2]._cancelled or self._timers[0][3].dead):  # type: ignore[attr-defined]
            heapq.heappop(self._timers)
        if not self._timers:
            self.failures.append("nothing is left to do, and the run has not ended")
            self.stop()
            return
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            _, _, handle, node = heapq.heappop(self._timers)
            if not (node.dead or handle._cancelled):  # type: ignore[attr-defined]
                node.ready.append(handle)

    def run(self) -> None:
        """Run until `stop`."""
        self.run_forever()

    def dispose(self) -> None:
        """End what is left, quietly: the coroutines of dead nodes are closed without effects."""
        self.over = True
        self._timers.clear()
        for node in self._live:
            node.ready.clear()
        for task in self.tasks:
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _take_apart(task.get_coro())
        self.tasks.clear()
        self.close()

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, event_list: Any) -> None:
        pass


class _Over(BaseException):
    """Thrown into coroutines when the run is over."""


def _take_apart(coro: Any) -> None:
    for _ in range(50):
        try:
            coro.throw(_Over())
        except BaseException:  # noqa: BLE001 - it has ended, whatever it raises
            return
