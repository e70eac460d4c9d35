"""Compiles the kernels before tests run in several processes, each of which would compile the same ones.

`python -m tests.support.kernels`, as `.ci/run` does. The few that it leaves out are compiled at their first use.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.warm import compile_kernels
from adledger.pipeline.rules.loader import DEFAULT, load_rules

MODEL = TrafficModel(
    seed=1, events=2_000, partitions=2, duration_hours=2, duplicate_share=0.05, malformed_share=0.01
)


def of_a_lane() -> None:
    """Compile what a lane runs."""
    compile_kernels(load_rules(DEFAULT))


def of_traffic() -> None:
    """Compile what generates traffic and its ground truth."""
    with tempfile.TemporaryDirectory() as folder, open_log(Path(folder) / "log", MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)


def _run(job: Callable[[], None]) -> None:
    job()


if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(_run, (of_a_lane, of_traffic)))
