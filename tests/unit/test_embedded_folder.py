"""The embedded server's folder: no empty server is ever created by mistake."""

import pytest

from adledger.pipeline.errors import SinkError
from adledger.sinks.embedded.folder import served_folder
from adledger.sinks.embedded.launch import EmbeddedServer


def server_folder(directory):
    directory.mkdir(parents=True)
    (directory / "engine.xml").touch()
    (directory / "data").mkdir()
    return directory


def test_a_new_an_empty_and_a_used_folder_are_served(tmp_path):
    """A new folder, an empty one, and one that a server used before are served."""
    (tmp_path / "empty").mkdir()
    used = server_folder(tmp_path / "used")
    for folder in (tmp_path / "new", tmp_path / "empty", used):
        assert served_folder(folder) == folder


def test_a_demos_folder_is_served_by_its_clickhouse(tmp_path):
    """For a demo's folder, which holds a log and ClickHouse's folder, the latter is served."""
    (tmp_path / "log").mkdir()
    inner = server_folder(tmp_path / "clickhouse")
    assert served_folder(tmp_path) == inner


def test_another_folder_is_refused_and_unchanged(tmp_path):
    """A folder that holds something else gets no server, and the remedy says what to name instead."""
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(
        SinkError, match="is neither empty nor a folder of the embedded ClickHouse"
    ) as refused:
        EmbeddedServer.start(tmp_path)
    assert refused.value.remedy == "name a new or empty folder, or a server's folder"
    assert [p.name for p in tmp_path.iterdir()] == ["letters.txt"]
    server_folder(tmp_path / "clickhouse")
    with pytest.raises(SinkError) as refused:
        EmbeddedServer.start(tmp_path)
    assert refused.value.remedy == f"name {tmp_path / 'clickhouse'}"
