"""What a worker does before its lanes' loop runs."""

import asyncio
import os
import signal

import pytest

from adledger.pipeline.control.service import _run_now


def test_sigterm_ends_a_check_in_order() -> None:
    """A check that is interrupted closes what it has opened, while its loop still runs, and the process exits with 0."""
    closed = []

    async def check() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    with pytest.raises(SystemExit) as ended:
        _run_now(check())
    assert ended.value.code == 0
    assert closed
