"""The proxies between workers and their servers, in one thread."""

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from adledger.loadtest.lab.clickhouse_frames import ClickHouseFaults
from adledger.loadtest.lab.kafka_frames import OFFSET_COMMIT, KafkaFaults
from adledger.loadtest.lab.tcp_proxy import Action, TcpProxy

T = TypeVar("T")


class CommitFaults(KafkaFaults):
    """Cuts the connection before the answer to a commit that the broker has done."""

    def __init__(self) -> None:
        super().__init__()
        self._armed = False
        self.struck = 0

    def strike_next(self) -> None:
        """Cut the answer to the next commit."""
        self._armed = True

    def reply(self, api_key: int) -> Action:
        """Return the action for a reply."""
        if api_key == OFFSET_COMMIT and self._armed:
            self._armed = False
            self.struck += 1
            return Action.CUT
        return super().reply(api_key)


class Proxies:
    """Listens for workers as soon as it is made; connections are refused until their server runs."""

    def __init__(self, kafka: tuple[str, int], clickhouse: tuple[str, int]) -> None:
        self.commits, self.inserts = CommitFaults(), ClickHouseFaults()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self.kafka = TcpProxy(*kafka, gate=self.commits.gate)
        self.clickhouse = TcpProxy(*clickhouse, gate=self.inserts.gate)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self.kafka.start())
        self._run(self.clickhouse.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._run(self.kafka.close())
        self._run(self.clickhouse.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def release_inserts(self) -> None:
        """Release the inserts that are held on their way to ClickHouse, and hold no more."""
        self.inserts.hold_next(None)
        self._loop.call_soon_threadsafe(self.clickhouse.release)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
