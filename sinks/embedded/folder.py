"""Which folder a server is of: a ClickHouse folder, a new one, or one that holds something else."""

from pathlib import Path

from adledger.pipeline.errors import SinkError

MARKS = ("engine.xml", "server.lock", "data")
"""What a folder of ours has, the latest first; `data` alone may be anybody's."""

BESIDE = "clickhouse"
"""The folder of a demo's folder that ClickHouse has."""


def is_server_folder(directory: Path) -> bool:
    """Whether the embedded server has used a folder before."""
    return any((directory / mark).exists() for mark in MARKS[:2])


def refuse_other_folder(directory: Path) -> None:
    """Raise SinkError where a server would be made by mistake: in a folder that holds something else."""
    if is_server_folder(directory) or not directory.is_dir() or not any(directory.iterdir()):
        return
    inner = directory / BESIDE
    remedy = f"name {inner}" if is_server_folder(inner) else "name a new or empty folder, or that of a server"
    raise SinkError(
        f"{directory} is no folder of the embedded ClickHouse, and it is not empty", remedy=remedy
    )


def served_folder(directory: Path) -> Path:
    """Return the folder to serve: a demo's has its ClickHouse in `clickhouse/`. Raises SinkError."""
    inner = directory / BESIDE
    if not is_server_folder(directory) and is_server_folder(inner):
        return inner
    refuse_other_folder(directory)
    return directory
