"""Which test shows the way out of which halt, so that none is without."""

import re
import shlex
from collections.abc import Callable
from typing import Any, TypeVar

from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.halts import HaltReason

Test = TypeVar("Test", bound=Callable[..., Any])

SHOWN: dict[HaltReason, list[str]] = {}
"""Reason -> the tests in which it occurs on real logs and tables, and is resolved as its message says."""


def shows_the_way_out(*reasons: HaltReason) -> Callable[[Test], Test]:
    """Enter a test for these reasons."""

    def enter(test: Test) -> Test:
        for reason in reasons:
            SHOWN.setdefault(reason, []).append(test.__name__)
        return test

    return enter


def printed_command(error: AdledgerError) -> list[str]:
    """Return the arguments of the override command in a remedy, with a reason, and executed."""
    found = re.search(r"adledger (lane (?:skip|resolve|repartition)\b[^;()]*--dry-run)", error.remedy)
    assert found, error.remedy
    command = found[1].replace("--reason TEXT", "--reason 'a test'").replace("--dry-run", "--execute")
    return shlex.split(command)
