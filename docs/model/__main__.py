"""`make model`: the protocol, and the protocol without each of its rules; `make model MUTANT=name` explains one in full."""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from docs.model.mutants import BY_NAME, MUTANTS, Mutant
from docs.model.search import Searched, search
from docs.model.trace import WRONG, trace

PROCESSES = 2


def searched_all() -> Iterator[tuple[Mutant | None, Searched]]:
    """Yield the protocol's search (None), then each mutant's, as they are listed.

    The search is compiled once, before the processes fork.
    """
    search(BY_NAME["ledger-first"].bit)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(PROCESSES, context) as pool:
        # The longest first: those that are searched to their end.
        bits = [0, *(m.bit for m in sorted(MUTANTS, key=lambda m: not m.holds))]
        found = dict(zip(bits, pool.map(search, bits), strict=True))
    yield None, found[0]
    for mutant in MUTANTS:
        yield mutant, found[mutant.bit]


def _line(mutant: Mutant | None, searched: Searched) -> str:
    if mutant is None or not searched.violation:
        found = f"holds: {searched.states:,} states, {searched.steps:,} steps"
    else:
        found = f"{len(searched.chain) - 1:2} steps to: {WRONG[searched.violation]}"
    name, lacks = (mutant.name, mutant.lacks) if mutant else ("protocol", "nothing: all rules are kept")
    return f"{name:20} {found}\n{'':20} lacks: {lacks}"


def _as_expected(mutant: Mutant | None, searched: Searched) -> bool:
    return (searched.violation == 0) == (mutant is None or mutant.holds)


def main() -> int:
    """Print what was found; 1 where the protocol fails or a mutant is not caught."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("mutant", nargs="?", choices=[*BY_NAME, ""], default="", metavar="MUTANT",
                        help=f"explain how it goes wrong: {', '.join(BY_NAME)}")  # fmt: skip
    name = parser.parse_args().mutant
    began = time.monotonic()
    expected = True
    if name:
        mutant = BY_NAME[name]
        searched = search(mutant.bit)
        print(_line(mutant, searched))
        for line in trace(searched, mutant.bit) if searched.violation else ():
            print(line)
        expected = _as_expected(mutant, searched)
    else:
        for found in searched_all():
            print(_line(*found))
            expected &= _as_expected(*found)
            if found[0] is None and found[1].violation:
                print("\n".join(trace(found[1], 0)))
        print(f"{time.monotonic() - began:.0f} s")
    return 0 if expected else 1


if __name__ == "__main__":
    sys.exit(main())
