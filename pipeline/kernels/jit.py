"""How kernels are compiled: numba without the GIL, cached on disk under a digest of all their sources.

Numba's own cache checks only the file of the function itself, so after an upgrade it could serve a kernel that has
inlined another one's old code. The digest in the folder's name rules that out.
"""

import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numba

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("pipeline/kernels/*.py", "loadtest/traffic/kernels/*.py", "pipeline/records/*.py", "schemas/*.py")
"""The kernels' sources: their own packages, and those whose constants are compiled in. A test follows the imports."""


def _digest() -> str:
    h = hashlib.sha256(f"numba {numba.__version__}".encode())
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            h.update(path.name.encode())
            h.update(path.read_bytes())
    return h.hexdigest()[:16]


def _cache_dir() -> str:
    base = os.environ.get("ADLEDGER_KERNEL_CACHE") or os.path.join(  # noqa: PTH118
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),  # noqa: PTH111
        "adledger",
        "kernels",
    )
    return os.path.join(base, _digest())  # noqa: PTH118


numba.config.CACHE_DIR = _cache_dir()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of numpy arrays and scalars: nogil, cached, no bounds checks, integer overflow wraps."""
    return numba.njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")(function)


def inline_kernel(function: Callable[..., Any]) -> Any:
    """Compile a small function that other kernels inline."""
    return numba.njit(cache=True, nogil=True, forceinline=True, error_model="numpy")(function)
