"""`--find-max`: the highest rate whose thresholds hold, each step a separate, verified run."""

import shutil
import time
from dataclasses import replace

from adledger.loadtest.profiles.profile import RATE_MAX
from adledger.loadtest.results.run_folder import (
    FRESHNESS,
    RUN,
    SECONDS_FILE,
    RunFolder,
    RunSummary,
    RunVerdict,
    Step,
)
from adledger.loadtest.runner.load import Interrupt, Screen
from adledger.loadtest.runner.run import ID_TIME, RunRequest, one_run
from adledger.loadtest.runner.target import drop_broker_data, new_id, servers
from adledger.pipeline.errors import UsageError

STEPS_MAX = 12
GROWTH = 2.0
PRECISION = 0.10
"""The search ends when the lowest rate that did not hold is within this ratio of the highest that did."""


def next_rate(start: float, steps: list[tuple[float, bool]]) -> float | None:
    """Return the rate to try next, after steps of (rate, held); None: the search is over.

    Up by doubling until one does not hold, down by halving until one holds, then between the two.
    """
    if not steps:
        return start
    held = max((rate for rate, ok in steps if ok), default=0.0)
    failed = min((rate for rate, ok in steps if not ok), default=0.0)
    if len(steps) >= STEPS_MAX or (held and failed and failed <= held * (1 + PRECISION)):
        return None
    if not failed:
        return None if held >= RATE_MAX else min(RATE_MAX, held * GROWTH)
    if not held:
        return failed / GROWTH if failed > GROWTH else None
    return (held + failed) / 2


def find_highest(request: RunRequest, screen: Screen, interrupt: Interrupt) -> tuple[RunFolder, RunSummary]:
    """Search; returns the folder of the search and the summary of its best step (its last, where none held).

    The steps' folders are beside it. Raises UsageError where the request has no rate to begin with.
    """
    if request.rate == 0:
        raise UsageError(
            "--find-max searches for a rate, and --rate max has none",
            remedy="leave --rate out, or set it to the first rate to try",
        )
    run_id = request.run_id or new_id(time.strftime(ID_TIME, time.gmtime()))
    folder = RunFolder.create(request.runs, run_id)
    start = request.rate or request.profile.load.rate
    tried: list[tuple[float, bool]] = []
    steps: list[Step] = []
    best: tuple[RunFolder, RunSummary] | None = None
    try:
        with servers(request.target, folder.path) as on:
            while (rate := next_rate(start, tried)) is not None and not interrupt.asked.is_set():
                step_folder = RunFolder.create(request.runs, f"{run_id}_{len(steps) + 1:02}")
                summary = one_run(replace(request, rate=rate), step_folder, on, screen, interrupt)
                held = summary.verdict is RunVerdict.HELD
                screen.say(f"{rate:,.0f} events/s: {', '.join((summary.verdict.value, *summary.why))}")
                if best is None or held or best[1].verdict is not RunVerdict.HELD:
                    best = step_folder, summary
                steps.append(
                    Step(
                        run_id=step_folder.path.name,
                        rate_per_second=rate,
                        held=held,
                        verdict=summary.verdict.value,
                    )
                )
                tried.append((rate, held))
    except BaseException:
        if best is None:  # there is no result; the step's folder has its logs
            shutil.rmtree(folder.path)
        raise
    drop_broker_data(on)
    assert best is not None, "a search has a first step"
    summary = replace(
        best[1], run_id=run_id, steps=tuple(steps),
        rate_max_per_second=max((rate for rate, held in tried if held), default=None),
    )  # fmt: skip
    if interrupt.asked.is_set():
        summary = replace(
            summary, verdict=RunVerdict.INTERRUPTED, why=("interrupted: the steps until then are kept",)
        )
    for name in (RUN, SECONDS_FILE, FRESHNESS):
        shutil.copy(best[0].path / name, folder.path / name)
    folder.write_run(replace(folder.run(), command=request.command))
    folder.write_summary(summary)
    return folder, summary
