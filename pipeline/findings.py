"""Findings: what is not as it must be, and how to fix it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the pipeline needs it, and the setting or command that fixes it.

    `advice` marks what is allowed but risky: it is shown, and stops nothing.
    """

    message: str
    remedy: str
    advice: bool = False


def format_findings(title: str, findings: Sequence[Finding]) -> str:
    """Return one text of all findings, each with its remedy."""
    return "\n  ".join([title, *(f"{f.message}\n    remedy: {f.remedy}" for f in findings)])
