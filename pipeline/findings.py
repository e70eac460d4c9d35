"""Findings: what is wrong, and how to fix it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not meet the pipeline's needs, and the setting or command that fixes it.

    `advice` marks what is allowed but risky: it is shown, but stops nothing.
    """

    message: str
    remedy: str
    advice: bool = False


def format_findings(title: str, findings: Sequence[Finding]) -> str:
    """Return all findings as one text, each with its remedy."""
    return "\n  ".join([title, *(f"{f.message}\n    remedy: {f.remedy}" for f in findings)])
