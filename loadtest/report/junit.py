"""A run as JUnit XML: validity, each threshold, each fault and the verification are test cases."""

from collections import Counter
from dataclasses import dataclass

from adledger.loadtest.report import figures
from adledger.loadtest.report.rendering import render
from adledger.loadtest.results.run_folder import Run, RunSummary, RunVerdict

PASSED, FAILURE, ERROR, SKIPPED = "passed", "failure", "error", "skipped"


@dataclass(frozen=True, slots=True)
class Case:
    """A test case; `message` says why it is not PASSED, `text` in full."""

    group: str
    name: str
    result: str = PASSED
    message: str = ""
    text: str = ""


def junit(run: Run, summary: RunSummary) -> str:
    """Return the XML. Only a run that held (verified, or with --no-verify) has no failure and no error."""
    cases = cases_of(run, summary)
    ended = run.ended_ms or run.load_ended_ms or run.started_ms
    return render(
        "junit.xml", profile=run.profile_name, cases=cases, count=Counter(case.result for case in cases),
        seconds=f"{(ended - run.started_ms) / 1_000:.3f}",
    )  # fmt: skip


def cases_of(run: Run, summary: RunSummary) -> list[Case]:
    """Return the test cases of a run."""
    valid = Case("run", f"{run.id} is valid")
    if summary.verdict in {RunVerdict.INVALID, RunVerdict.INTERRUPTED}:
        valid = Case(
            "run", valid.name, ERROR, summary.why[0] if summary.why else "invalid", "\n".join(summary.why)
        )
    return [
        valid,
        *(
            Case("thresholds", f"{t.metric}: {t.expression}")
            if t.held
            else Case("thresholds", f"{t.metric}: {t.expression}", FAILURE, f"measured {figures.metric(t.metric, t.value)}")
            for t in summary.thresholds
        ),
        *(
            Case("faults", f"{f.kind} at {f.at_seconds:g} s takes effect", PASSED if f.took_effect else ERROR, f.seen)
            for f in summary.faults
        ),
        _verification(summary),
    ]  # fmt: skip


def _verification(summary: RunSummary) -> Case:
    found = summary.verification
    name = "every table is as expected"
    if found.ran and found.equal:
        return Case("verification", name)
    if found.ran:
        lines = (*found.wrong, *found.explanations)
        return Case("verification", name, FAILURE, f"{found.rows_wrong:,} of {found.rows_compared:,} rows differ", "\n".join(lines))  # fmt: skip
    wanted = summary.verdict is RunVerdict.UNVERIFIED
    return Case("verification", name, ERROR if wanted else SKIPPED, f"not verified: {found.why_not}")
