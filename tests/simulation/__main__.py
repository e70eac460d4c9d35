"""`make simulate SEEDS=5000..6999`: run seeds, two at a time, and print what was injected and the result.

A failing seed prints the command that repeats it, and with TRACE=1 what every node did, and when.
"""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import Outcome
from tests.simulation.seeds import Mode, outcomes_of, run_one
from tests.simulation.world import FAULTS

FAILURES_SHOWN = 5
TRACE_LINES_MAX = 400


def main() -> int:
    """Return 0 where every seed passed, or, with a mutation, where one failed."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", default="0..1999", help="FIRST..LAST, or one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--trace", action="store_true", help="print each seed's trace, whole")
    parser.add_argument("--mutation", choices=[m.name for m in MUTATIONS], help="take a rule out")
    parser.add_argument(
        "--overwrites", action="store_true", help="in every seed an election overwrites what a lane has read"
    )
    args = parser.parse_args()
    mode = Mode(args.mutation, args.overwrites)
    first, _, last = args.seeds.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    began = time.monotonic()
    failed, faults, seen = [], Counter[str](), Counter[str]()
    for outcome in outcomes_of(seeds, args.processes, mode):
        faults += outcome.faults
        seen.update(seeds=1, batches=outcome.batches, records=outcome.records, steps=outcome.steps)
        if args.trace:
            _show(_again(outcome.seed, mode), mode, whole=True)
        elif outcome.problems and len(failed) < FAILURES_SHOWN:
            _show(_again(outcome.seed, mode), mode, whole=False)
        if outcome.problems:
            failed.append(outcome.seed)
    seconds = time.monotonic() - began
    _say("\nfaults injected:")
    for kind in FAULTS:
        _say(f"  {kind:<28} {faults[kind]:>9,}")
    _say(
        f"\n{seen['seeds']:,} seeds in {seconds:.0f} s: {seen['records']:,} records, {seen['batches']:,} batches, "
        f"{seen['steps']:,} steps, {sum(faults.values()):,} faults; {len(failed)} seeds failed"
    )
    if failed:
        _say(f"failed: {failed[:20]}; repeat one with: {_repeat(failed[0], mode)}")
    return int(bool(failed) != bool(args.mutation))


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _repeat(seed: int, mode: Mode) -> str:
    forced = " OVERWRITES=1" if mode.forced else ""
    return f"make simulate SEEDS={seed}..{seed}{forced} TRACE=1"


def _again(seed: int, mode: Mode) -> Outcome:
    return run_one(seed, mode, trace=True)


def _show(outcome: Outcome, mode: Mode, *, whole: bool) -> None:
    lines = outcome.trace if whole else outcome.trace[-TRACE_LINES_MAX:]
    _say(f"\n== seed {outcome.seed}: {outcome.virtual_seconds:.0f} virtual seconds")
    _say(*lines)
    for problem in outcome.problems:
        _say(f"PROBLEM: {problem}")
    if outcome.problems:
        _say(f"repeat it: {_repeat(outcome.seed, mode)}")


if __name__ == "__main__":
    sys.exit(main())
