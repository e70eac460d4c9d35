"""The short Markdown of a run, for a job's summary or a merge request."""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from adledger.loadtest.report import figures, wording
from adledger.loadtest.results.run_folder import Run, RunSummary

WRONG_SHOWN_MAX = 5
_SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "\\`*_[]|"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}
)


def markdown(run: Run, summary: RunSummary) -> str:
    """Return the verdict, the four figures, the thresholds, and the command."""
    return "\n".join(_lines(run, summary)) + "\n"


def escaped(text: str) -> str:
    """Return a text in which nothing is Markdown or HTML."""
    return text.translate(_SPECIAL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines; cells are escaped."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(map(escaped, row)) + " |"


def _lines(run: Run, summary: RunSummary) -> Iterator[str]:
    headline = wording.headline(run, summary)
    yield f"### {headline.mark} {escaped(run.profile_name)}: {escaped(headline.title)}"
    yield ""
    yield escaped(headline.sentence)
    yield ""
    if reasons := wording.reasons(summary):
        yield from (f"- {escaped(reason)}" for reason in reasons)
        yield ""
    yield from table(
        ("what", "measured", ""), ((t.label, t.value, t.detail) for t in wording.tiles(run, summary))
    )
    if summary.thresholds:
        yield ""
        yield from table(
            ("", "threshold", "measured"),
            (
                (wording.MARKS[wording.GOOD if t.held else wording.BAD], f"{t.metric}: {t.expression}", figures.metric(t.metric, t.value))
                for t in summary.thresholds
            ),
        )  # fmt: skip
    wrong = [*summary.verification.wrong[:WRONG_SHOWN_MAX], *summary.verification.explanations[:WRONG_SHOWN_MAX]]  # fmt: skip
    if wrong:
        yield ""
        yield from (f"- {escaped(line)}" for line in wrong)
    if summary.steps:
        yield ""
        yield from table(
            ("", "rate", "run"),
            (
                (wording.MARKS[wording.GOOD if s.held else wording.BAD], f"{figures.number(s.rate_per_second)} events/s", s.run_id)
                for s in summary.steps
            ),
        )  # fmt: skip
    yield ""
    yield from (f"- {escaped(caution)}" for caution in wording.cautions(run, summary))
    yield ""
    yield f"Run {escaped(summary.run_id)}. Repeat it:"
    yield from ("", "    " + shlex.join(run.command).replace("\n", " "))
