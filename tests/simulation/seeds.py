"""Running many seeds, in several processes."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from adledger.pipeline.lanes.warm import compile_kernels
from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import REAL, Outcome, run

SEEDS_AT_ONCE = 25


@dataclass(frozen=True, slots=True)
class Mode:
    """How seeds are run: with a rule removed (a mutation's name), or with an overwritten log in every one."""

    mutation: str | None = None
    forced: bool = False


def run_one(seed: int, mode: Mode, *, trace: bool = False) -> Outcome:
    for m in MUTATIONS:
        if m.name == mode.mutation:
            with m.in_force():
                return run(seed, trace=trace, parts=m.parts, forced=m.forced or mode.forced)
    return run(seed, trace=trace, parts=REAL, forced=mode.forced)


def run_some(work: tuple[list[int], Mode]) -> list[Outcome]:
    return [run_one(seed, work[1]) for seed in work[0]]


def outcomes_of(seeds: range, processes: int, mode: Mode) -> Iterator[Outcome]:
    compile_kernels()
    pieces = [(list(seeds[i : i + SEEDS_AT_ONCE]), mode) for i in range(0, len(seeds), SEEDS_AT_ONCE)]
    if processes == 1 or len(pieces) == 1:
        for piece in pieces:
            yield from run_some(piece)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, compile_kernels) as pool:
        for found in pool.map(run_some, pieces):
            yield from found
