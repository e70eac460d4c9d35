"""A disk that can be filled: a small file system of the server's own, or a limit on the size of its files."""

import os
import resource
import subprocess
from pathlib import Path

import psutil

from pipeline.errors import AdledgerError

SIZE_MB = 1024


class Disk:
    """Holds the server's folder. `how` says what it is."""

    def __init__(self, folder: Path) -> None:
        """Mount a tmpfs on the folder where that is permitted."""
        self.folder = folder
        folder.mkdir(parents=True)
        done = subprocess.run(  # noqa: S603
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)],  # noqa: S607
            capture_output=True, check=False,
        )  # fmt: skip
        self._mounted = done.returncode == 0
        self.how = f"a file system of {SIZE_MB} MB" if self._mounted else "a limit on the size of files"
        self._ballast = folder / "ballast"

    def fill(self, pid: int) -> int:
        """Leave the server of this process no room for another byte; returns the free bytes that are left."""
        if not self._mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return resource.prlimit(pid, resource.RLIMIT_FSIZE)[0]
        with self._ballast.open("wb") as file:
            while free := psutil.disk_usage(str(self.folder)).free:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
                except OSError:  # somebody else took some of it meanwhile
                    continue
        return int(psutil.disk_usage(str(self.folder)).free)

    def free(self, pid: int) -> None:
        """Give the room back."""
        if self._mounted:
            self._ballast.unlink()
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        """Unmount. Raises AdledgerError where it is still in use."""
        if self._mounted:
            done = subprocess.run(["umount", str(self.folder)], capture_output=True, text=True, check=False)  # noqa: S603, S607
            if done.returncode:
                raise AdledgerError(
                    f"{self.folder} can't be unmounted: {done.stderr.strip()}", remedy=f"umount {self.folder}"
                )
            self._mounted = False
