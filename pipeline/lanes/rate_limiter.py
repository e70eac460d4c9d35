"""A worker's insert rate limit, and its CPU time."""

import asyncio
import time


class RateLimiter:
    """Turns of `cost` units, at most `per_second` units a second; bursts of one second's worth are allowed."""

    def __init__(self, per_second: int, cost: int) -> None:
        self._seconds = cost / per_second
        self._free_at = 0.0

    async def turn(self) -> None:
        """Wait for the caller's turn."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - 1.0) + self._seconds
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Meter:
    """Wall and CPU time of this process since construction."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Return wall and CPU seconds."""
        return time.monotonic() - self._wall, time.process_time() - self._cpu
