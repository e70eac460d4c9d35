"""A disk that can be filled: a small file system for the server, or tables that require more free space than the disk has.

The engine in chDB (4.4) acknowledges inserts and publishes merges whose writes failed on a full disk, where it had
reserved the space before. So the disk is filled only while nothing is being written: later inserts are then refused.
"""

import os
import subprocess
from pathlib import Path

import psutil

from adledger.loadtest.lab.waiting import until
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import AdledgerError
from adledger.schemas.tables import DISK_FREE_BYTES_MIN, PROTOCOL_TABLES
from adledger.sinks.connection import connect

SIZE_MB = 1024
MORE_THAN_THERE_IS_BYTES = 1 << 60
UNMOUNT_SECONDS_MAX = 30
_UNMOUNT = 'read -r _; umount "$0" || umount -l "$0"'
"""A shell script that waits until its standard input ends, as it does however the parent ends, and unmounts."""


class Disk:
    """The disk of the server's folder. `how` describes how it is filled."""

    def __init__(self, folder: Path) -> None:
        """Mount a tmpfs on the folder where that is permitted."""
        self.folder = folder.absolute()
        folder.mkdir(parents=True)
        done = subprocess.run(  # noqa: S603
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)],  # noqa: S607
            capture_output=True, check=False,
        )  # fmt: skip
        self._mounted = done.returncode == 0
        self._unmounts = self._unmounter() if self._mounted else None
        how = f"a file system of {SIZE_MB} MB filled to the last byte"
        self.how = how if self._mounted else "tables that demand more room than the disk has"
        self._ballast = folder / "ballast"

    def fill(self, server: ServerAddress, database: str) -> None:
        """Leave no space for another insert. The caller ensures that none is under way."""
        self._execute(server, ["SYSTEM STOP MERGES"])
        client = connect(server)
        try:
            until(
                lambda: not client.execute("SELECT count() FROM system.merges")[0][0], "the end of the merges"
            )
        finally:
            client.disconnect()
        if not self._mounted:
            setting = f"MODIFY SETTING min_free_disk_bytes_to_perform_insert = {MORE_THAN_THERE_IS_BYTES}"
            self._execute(server, [f"ALTER TABLE {database}.{table} {setting}" for table in PROTOCOL_TABLES])
            return
        with self._ballast.open("wb") as file:
            while free := psutil.disk_usage(str(self.folder)).free:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
                except OSError:  # another process took some of it meanwhile
                    continue

    def free(self, server: ServerAddress, database: str) -> None:
        """Free the space."""
        if self._mounted:
            self._ballast.unlink()
        else:
            setting = f"MODIFY SETTING min_free_disk_bytes_to_perform_insert = {DISK_FREE_BYTES_MIN}"
            self._execute(server, [f"ALTER TABLE {database}.{table} {setting}" for table in PROTOCOL_TABLES])
        self._execute(server, ["SYSTEM START MERGES"])

    def close(self) -> None:
        """Unmount; this also happens when this process is killed. Raises AdledgerError where that fails."""
        if self._unmounts is None:
            return
        _, output = self._unmounts.communicate(timeout=UNMOUNT_SECONDS_MAX)
        if self._unmounts.returncode:
            raise AdledgerError(
                f"{self.folder} can't be unmounted: {output.decode().strip()}",
                remedy=f"umount -l {self.folder}",
            )
        self._mounted, self._unmounts = False, None

    def _unmounter(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 - a session of its own: what ends ours leaves it time to unmount
            ["sh", "-c", _UNMOUNT, str(self.folder)],  # noqa: S607
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, cwd="/",
        )  # fmt: skip

    def _execute(self, server: ServerAddress, statements: list[str]) -> None:
        client = connect(server)
        try:
            for statement in statements:
                client.execute(statement)
        finally:
            client.disconnect()
