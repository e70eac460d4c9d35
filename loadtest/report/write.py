"""Writes a run folder's reports: report.html, report.md, junit.xml."""

from pathlib import Path

from adledger.loadtest.report.junit import junit
from adledger.loadtest.report.markdown import markdown
from adledger.loadtest.report.page import page
from adledger.loadtest.results.run_folder import FRESHNESS, RUN, SECONDS_FILE, SUMMARY, RunFolder

HTML, MARKDOWN, JUNIT = "report.html", "report.md", "junit.xml"
OF_THE_RUN = (RUN, SUMMARY, SECONDS_FILE, FRESHNESS)


def write_report(folder: RunFolder) -> dict[str, Path]:
    """Write the report of an ended run; return the folder's existing files, by name.

    Raises UsageError where the run has no summary, or was written by a later adledger.
    """
    run, summary = folder.run(), folder.summary()
    made = {
        HTML: page(run, summary, folder.seconds()),
        MARKDOWN: markdown(run, summary),
        JUNIT: junit(run, summary),
    }
    for name, text in made.items():
        new = folder.path / f"{name}.new"
        new.write_text(text, "utf-8", errors="replace")
        new.replace(folder.path / name)
    return {name: path for name in (*made, *OF_THE_RUN) if (path := folder.path / name).is_file()}
