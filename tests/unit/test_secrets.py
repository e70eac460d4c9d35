"""No secret is printed: a marked one is put where secrets go, and where they go by mistake."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.settings import KAFKA_PROPERTIES

MARK = "hunter2-Z9"
CODED = "hunter2%2DZ9"

SECRET_PROPERTIES = [name for name in KAFKA_PROPERTIES if name.endswith("password")]
MISTYPED = [
    "sasl.pasword",
    "sasl.passwrd",
    "ssl.key.passwort",
    "sasl.jaas.config",
    "password",
    "bootstrap.login",
]

ADDRESSES = [
    f"clickhouse://u:{MARK}@127.0.0.1:1/", f"clickhouse://u:{CODED}@127.0.0.1:1/",
    f"clickhouse://u:{MARK}@127.0.0.1:1/?bad=1", f"clickhouse://u:{MARK}@127.0.0.1:1/?secure=1&ca=/none",
    f"clickhouse://u:12/{MARK}@127.0.0.1:1/", f"clickhouse://u:a@b{MARK}@127.0.0.1:1/", f"clickhouse://u:a?{MARK}@127.0.0.1:1/",
    f"clickhouse://u:a#{MARK}@127.0.0.1:1/", f"clickhouse://127.0.0.1:1/?password={MARK}", f"clickhouse://127.0.0.1:1/?passwrod={MARK}",
    f"clickhouse://127.0.0.1:1/?pwd={MARK}", f"clickhouse://127.0.0.1:1/?http_port={MARK}", f"clickhouse://127.0.0.1:1/?secure={MARK}",
    f"clickhouse://127.0.0.1:1/{MARK}", f"http://u:{MARK}@127.0.0.1:1/", f"clickhouse:u:{MARK}@127.0.0.1",
]  # fmt: skip
SOURCES = [
    f"kafka://u:{MARK}@127.0.0.1:1", f"kafka://127.0.0.1:1?password={MARK}", f"kafka://127.0.0.1:1/?sasl.pasword={MARK}",
    f"kafka://127.0.0.1:1,u:{MARK}@127.0.0.1:2", f"sasl://u:{MARK}@127.0.0.1:1", f"kafka://127.0.0.1:1#{MARK}",
]  # fmt: skip

COMMANDS = [("config",), ("config", "--json"), ("doctor",), ("status",), ("ledger", "check"), ("topics", "check"), ("run",),
            ("query", "SELECT 1"), ("lane", "status"), ("migrate", "--dry-run")]  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shows_nothing(*arguments: str, env: dict[str, str] | None = None) -> None:
    """Run a command; neither its output nor its error, nor the error's repr, has the mark."""
    done = CliRunner().invoke(app, arguments, env=env)
    error = done.exception
    for text in (done.output, str(error), repr(error), repr(getattr(error, "remedy", ""))):
        assert MARK not in text, (arguments, text)
        assert CODED not in text, (arguments, text)


@pytest.mark.parametrize("address", [*ADDRESSES, *SOURCES])
def test_no_part_of_an_address_that_may_be_a_secret_is_printed(address):
    """The address may come by flag, --set, environment or file, and be accepted or refused."""
    name = "source" if address in SOURCES else "clickhouse"
    Path("some.toml").write_text(f"{name} = {json.dumps(address)}\n")
    shows_nothing("config", "--set", f"{name}={address}")
    shows_nothing("config", "--json", "--config", "some.toml")
    shows_nothing("config", env={f"ADLEDGER_{name.upper()}": address})
    shows_nothing("status", f"--{name}", address)


@pytest.mark.parametrize("name", [*SECRET_PROPERTIES, *MISTYPED])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_value_of_a_secret_or_unknown_property_is_printed(name, command):
    """A mistyped name may be a password's, so every command hides its value."""
    where = ("--set", "clickhouse=clickhouse://127.0.0.1:1/", "--set", f"kafka.{name}={MARK}")
    shows_nothing(*command, *where)
    Path("adledger.toml").write_text(f"[kafka]\n{json.dumps(name)} = {json.dumps(MARK)}\n")
    shows_nothing(*command, "--set", "clickhouse=clickhouse://127.0.0.1:1/")


@pytest.mark.parametrize("name", ["clickhouse_password", "pasword", "sasl_password", "secret"])
def test_no_value_of_an_unknown_setting_is_printed(name):
    """An unknown setting's name is printed, its value never."""
    shows_nothing("config", "--set", f"{name}={MARK}")
    shows_nothing("config", "--set", MARK)
    shows_nothing("config", env={f"ADLEDGER_{name.upper()}": MARK})
    Path("adledger.toml").write_text(f"{name} = {json.dumps(MARK)}\n")
    shows_nothing("config")


def test_the_embedded_servers_process_shows_no_setting(tmp_path):
    """`ps` shows only folders and ports of the processes that are started."""
    from adledger.sinks.embedded.launch import _command

    assert _command(tmp_path, 0, 0)[3:8] == [str(tmp_path), "--port", "0", "--http-port", "0"]
