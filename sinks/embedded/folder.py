"""Checks a server's folder: an existing one, a new one, or one with other content, which is refused."""

from pathlib import Path

from adledger.pipeline.errors import SinkError

MARKS = ("engine.xml", "server.lock", "data")
"""Entries of a server's folder, the latest first; `data` alone may belong to something else."""

BESIDE = "clickhouse"
"""ClickHouse's folder within a demo's folder."""


def is_server_folder(directory: Path) -> bool:
    """Whether the embedded server has used a folder before."""
    return any((directory / mark).exists() for mark in MARKS[:2])


def refuse_other_folder(directory: Path) -> None:
    """Raise SinkError where a server would be created by mistake: in a folder with other content."""
    if is_server_folder(directory) or not directory.is_dir() or not any(directory.iterdir()):
        return
    inner = directory / BESIDE
    remedy = (
        f"name {inner}" if is_server_folder(inner) else "name a new or empty folder, or a server's folder"
    )
    raise SinkError(f"{directory} is neither empty nor a folder of the embedded ClickHouse", remedy=remedy)


def served_folder(directory: Path) -> Path:
    """Return the folder to serve: in a demo's folder, ClickHouse is in `clickhouse/`. Raises SinkError."""
    inner = directory / BESIDE
    if not is_server_folder(directory) and is_server_folder(inner):
        return inner
    refuse_other_folder(directory)
    return directory
