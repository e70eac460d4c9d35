"""Many seeds, some at once in processes of their own."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from adledger.pipeline.lanes.warm import compile_kernels
from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import REAL, Outcome, run

SEEDS_AT_ONCE = 25


def run_one(seed: int, mutation: str | None, *, trace: bool = False) -> Outcome:
    for m in MUTATIONS:
        if m.name == mutation:
            with m.in_force():
                return run(seed, trace=trace, parts=m.parts)
    return run(seed, trace=trace, parts=REAL)


def run_some(work: tuple[list[int], str | None]) -> list[Outcome]:
    return [run_one(seed, work[1]) for seed in work[0]]


def outcomes_of(seeds: range, processes: int, mutation: str | None) -> Iterator[Outcome]:
    compile_kernels()
    pieces = [(list(seeds[i : i + SEEDS_AT_ONCE]), mutation) for i in range(0, len(seeds), SEEDS_AT_ONCE)]
    if processes == 1 or len(pieces) == 1:
        for piece in pieces:
            yield from run_some(piece)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, compile_kernels) as pool:
        for found in pool.map(run_some, pieces):
            yield from found
