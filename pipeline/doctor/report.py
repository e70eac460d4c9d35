"""What was looked at, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from adledger.pipeline.findings import Finding


class CheckState(StrEnum):
    """How a check ended."""

    FINE = "fine"
    ADVICE = "advice"  # works, and something is risky or unlike what is usual
    ERROR = "error"
    NOT_MADE = "not made"  # an earlier error was in its way


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `what` says what was seen; `not_made` why it could not be looked at."""

    area: str
    what: str
    findings: Sequence[Finding] = ()
    not_made: str = ""

    @property
    def state(self) -> CheckState:
        """How it ended: the worst that was found."""
        if any(not finding.advice for finding in self.findings):
            return CheckState.ERROR
        if self.not_made:
            return CheckState.NOT_MADE
        return CheckState.ADVICE if self.findings else CheckState.FINE


def found_wrong(checks: Sequence[Check]) -> bool:
    """Tell whether anything is wrong, or something could not be looked at."""
    return any(check.state in {CheckState.ERROR, CheckState.NOT_MADE} for check in checks)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the one object that `--json` prints."""
    return {
        "healthy": not found_wrong(checks),
        "checks": [
            {
                "area": check.area,
                "what": check.what,
                "state": str(check.state),
                "not_made": check.not_made or None,
                "findings": [
                    {"severity": "advice" if f.advice else "error", "message": f.message, "remedy": f.remedy}
                    for f in check.findings
                ],
            }
            for check in checks
        ],
    }
