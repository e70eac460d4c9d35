"""Fuzz for a while, from a seed that is printed: `python -m tests.fuzz --seconds 60`.

Each case has its own seed, derived from the run's seed and its number, so that a failure can be repeated alone: `python -m
tests.fuzz --target batches --seed 5 --case 1234`.
"""

import argparse
import random
import secrets
import sys
import time
import traceback

from tests.fuzz.targets import TARGETS, corpus

CASES_BETWEEN_LOOKS = 50


def run_case(target: str, seed: int, case: int, kept: list[bytes]) -> None:
    """Run one case. Raises the violation."""
    TARGETS[target](random.Random(f"{target} {seed} {case}"), kept)


def fuzz(target: str, seed: int, seconds: float) -> int | None:
    """Fuzz a target; return how many cases held, or None where one did not, which is printed."""
    kept = corpus(target)
    ends, case = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        for _ in range(CASES_BETWEEN_LOOKS):
            try:
                run_case(target, seed, case, kept)
            except Exception:  # noqa: BLE001 - any error is a finding
                traceback.print_exc()
                sys.stderr.write(
                    f"repeat it: python -m tests.fuzz --target {target} --seed {seed} --case {case}\n"
                )
                return None
            case += 1
    return case


def main() -> int:
    """Fuzz every target, or repeat one case; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all, over the targets")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--target", choices=tuple(TARGETS), action="append")
    parser.add_argument("--case", type=int, default=None, help="only this case")
    given = parser.parse_args()
    targets = given.target or list(TARGETS)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    if given.case is not None:
        for target in targets:
            run_case(target, seed, given.case, corpus(target))
        return 0
    sys.stdout.write(f"seed {seed}\n")
    for target in targets:
        cases = fuzz(target, seed, given.seconds / len(targets))
        if cases is None:
            return 1
        sys.stdout.write(f"{target}: {cases:,} cases\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
