"""Copies input that can be read only once (a pipe, /dev/stdin) to a temporary file, since an import reads twice."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adledger.pipeline.errors import UsageError

COPY_BYTES = 1024 * 1024


@contextmanager
def spooled(path: Path, progress: Callable[[str, int, int], None]) -> Iterator[Path]:
    """Yield the path of a file that can be read twice: the file itself, or a copy of a pipe's content.

    Raises UsageError if there is no room for the copy, or the pipe can't be read.
    """
    if not path.exists() or path.is_file() or path.is_dir():
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="adledger-import-") as copy:
        try:
            with path.open("rb") as pipe:
                while data := pipe.read(COPY_BYTES):
                    copy.write(data)
                    progress("receiving", copy.tell(), 0)
            copy.flush()
        except OSError as error:
            free = shutil.disk_usage(tempfile.gettempdir()).free
            raise UsageError(
                f"cannot copy {path} to {tempfile.gettempdir()} ({free:,} bytes free): {error.strerror}",
                remedy="Set TMPDIR to a folder with enough space, or import a file instead of a pipe.",
            ) from error
        yield Path(copy.name)
