"""Servers that tests need and a laptop may lack: without them their tests skip there, and fail in CI."""

import os
from typing import NoReturn

import pytest

from adledger.pipeline.errors import AdledgerError

WITHOUT = "TESTS_WITHOUT"
"""Services, separated by commas, that CI could not install on its platform and goes without, knowing it."""


def missing(service: str, error: AdledgerError) -> NoReturn:
    """Skip the test, with the reason; in CI (the variable CI is set) fail it."""
    reason = f"{service}: {error.message}. To fix it: {error.remedy}"
    if os.environ.get("CI") and service not in os.environ.get(WITHOUT, "").split(","):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
