"""Looking at this machine and the settings alone: memory, compiled kernels, the pages' port."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from adledger.pipeline.doctor.report import Check
from adledger.pipeline.findings import Finding
from adledger.pipeline.settings import Settings

AREA = "machine"
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def memory_bytes() -> int:
    """Return how much memory this machine gives a process: all there is, or its container's limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no cgroup, or its limit is "max"
        return min(physical, int(_CGROUP_MEMORY.read_text("ascii")))
    return physical


def kernels_check() -> Check:
    """Check that compiled kernels are kept: they are looked for where this release puts them, not run."""
    import numba  # noqa: PLC0415 - slow, and only its setting is needed

    import adledger.pipeline.kernels.jit  # noqa: F401, PLC0415 - names the folder

    folder = Path(numba.config.CACHE_DIR)
    compiled = len(list(folder.rglob("*.nbc")))
    if compiled:
        return Check(AREA, f"{compiled} compiled kernels in {folder}")
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(nearest, os.W_OK):
        finding = Finding(
            f"compiled kernels can't be kept: {nearest} is not writable; every start compiles them again, which takes about a minute",
            "set ADLEDGER_KERNEL_CACHE to a folder that this user may write",
        )
        return Check(AREA, "compiled kernels", [finding])
    return Check(
        AREA, f"kernels are not compiled yet: the first start does it, about a minute, into {folder}"
    )


def web_port_check(settings: Settings) -> Check:
    """Check that a worker could have the pages' address."""
    host, port = settings.web_host, settings.web_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        finding = Finding(
            f"the pages' address {host}:{port} can't be taken: {error.strerror or error}. Another worker "
            "or another program uses it",
            "for one more worker here: adledger run --web-port 0",
            advice=True,
        )
        return Check(AREA, f"pages at {host}:{port}", [finding])
    return Check(AREA, f"pages at {host}:{port}: free" if port else "pages: on any free port")
