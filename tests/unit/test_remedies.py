"""Commands in remedies reach the same deployment as the failed command."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.cli.remedies import command_flags, complete, completed
from adledger.pipeline.errors import LogError
from adledger.pipeline.settings_layers import load

CREATE = "adledger topics create"


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_remedies_repeat_the_flags():
    """Settings that came by option or --set are repeated; those from elsewhere, or of no effect, are not."""
    loaded = load(
        {"source": "kafka://h:1", "group": "g"},
        ["topics=b.i,b.c", "kafka.security.protocol=SSL", "batch_rows_max=4096"],
        None,
    )
    flags = command_flags(loaded, None)
    given = shlex.split(flags[CREATE])
    assert given == [
        "--source",
        "kafka://h:1",
        "--set",
        "topics=b.i,b.c",
        "--set",
        "kafka.security.protocol=SSL",
    ]
    assert "--group g" in flags["adledger lane skip"]
    assert flags["adledger migrate"] == ""
    text = complete(f"there is none: {CREATE}; or adledger migrate", flags)
    assert text == f"there is none: {CREATE} {flags[CREATE]}; or adledger migrate"
    again = load({"source": given[1]}, [given[3], given[5]], None)
    assert again.settings.topics == loaded.settings.topics


def test_the_settings_file_is_named_again(tmp_path: Path):
    """After a command with --config the remedy has it too."""
    (tmp_path / "my.toml").write_text('source = "kafka://h:1"\n')
    loaded = load({}, (), tmp_path / "my.toml")
    assert command_flags(loaded, tmp_path / "my.toml")[CREATE] == f"--config {tmp_path / 'my.toml'}"


def test_no_secret_is_repeated():
    """Neither the password of an address nor that of a property is in a remedy."""
    loaded = load({"clickhouse": "clickhouse://u:hidden@h:1"}, ["kafka.sasl.password=hidden2"], None)
    assert "hidden" not in "".join(command_flags(loaded, None).values())


def test_errors_of_a_block_are_completed():
    """Message and remedy are completed, and the error object stays the same."""
    with pytest.raises(LogError) as raised, completed({CREATE: "--source x"}):
        raise LogError(f"wrong: {CREATE}", remedy=CREATE)
    assert str(raised.value) == f"wrong: {CREATE} --source x\n  remedy: {CREATE} --source x"


def test_an_unreachable_broker_is_reported_once(unused_tcp_port: int, tmp_path: Path):
    """`lane status` and a worker print one error, without client log lines before it."""
    here = ["--source", f"kafka://127.0.0.1:{unused_tcp_port}", "--clickhouse", f"embedded:{tmp_path / 'ch'}"]
    for command in (["lane", "status"], ["run", "--without-web"]):
        ended = CliRunner().invoke(app, [*command, *here])
        assert "nothing listens there" in str(ended.exception)
        assert ended.output == ""
