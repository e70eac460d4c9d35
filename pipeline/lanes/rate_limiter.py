"""How fast a worker may insert, and what its work took."""

import asyncio
import time


class RateLimiter:
    """Turns, each of `cost` units, at most `per_second` units a second; a second's worth may come at once."""

    def __init__(self, per_second: int, cost: int) -> None:
        self._seconds = cost / per_second
        self._free_at = 0.0

    async def turn(self) -> None:
        """Return when it is the caller's turn."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - 1.0) + self._seconds
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Meter:
    """Wall and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Return wall and CPU seconds."""
        return time.monotonic() - self._wall, time.process_time() - self._cpu
