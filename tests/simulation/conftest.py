"""Asynchronous tests in this package run in virtual time."""

import random
from collections.abc import Callable, Mapping

from tests.simulation.loop import SimLoop


def pytest_asyncio_loop_factories(config, item) -> Mapping[str, Callable[[], SimLoop]]:
    """Tell pytest-asyncio which loop to make."""
    return {"virtual": lambda: SimLoop(random.Random(1), lambda: 0.001)}
