"""The command line: conventions of every command, and the exit code of each kind of ending."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from adledger.pipeline.cli import app as root
from adledger.pipeline.cli import dead_letters, output
from adledger.pipeline.cli.app import COMMANDS, app, main
from adledger.pipeline.errors import AdledgerError, SinkUnavailable, UsageError

HEAVY = (
    "numba",
    "numpy",
    "chdb",
    "clickhouse_driver",
    "aiokafka",
    "pydantic",
    "rich",
    "asyncio",
    "http.client",
)
"""What `adledger --help` must not wait for."""


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in [v for v in os.environ if v.startswith("ADLEDGER_")]:
        monkeypatch.delenv(variable)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def commands() -> list[tuple[str, ...]]:
    """Return every command and group, as a user would type it."""
    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        command = root._load(name)
        found += [(name,)] + [(name, sub) for sub in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_shows_examples(command):
    """Each command describes itself, with examples that begin as a user would type them."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    examples = result.stdout.partition("Examples:")[2].split("Options:")[0]
    assert f"adledger {' '.join(command)}".strip() in examples


def test_help_lists_each_command_on_one_line():
    """The list is complete, and no summary is cut off."""
    lines = run("--help").stdout.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == list(COMMANDS)
    assert not [line for line in lines if line.endswith("...")]


def in_a_process(
    *arguments: str, code: str = "from adledger.pipeline.cli import main; main()", **options: Any
) -> Any:
    python = [sys.executable, "-c", code, *arguments]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2])])
    return subprocess.run(
        python, capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=False, **options
    )


def test_help_imports_nothing_heavy():
    """`--help` imports no compiler, engine, client or settings library."""
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))\n"
        "from adledger.pipeline.cli import main; main()"
    )
    ended = in_a_process("--help", code=code)
    assert (ended.returncode, ended.stderr.decode().strip()) == (0, "")


def exit_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["adledger", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [(AdledgerError("wrong", remedy="fix"), 1), (SinkUnavailable("wrong", remedy="fix"), 1),
     (UsageError("wrong", remedy="fix"), 2), (KeyboardInterrupt(), 130)],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_each_ending_has_its_exit_code(monkeypatch, capsys, error, code):
    """1 is failed, 2 misused, 130 interrupted; the error and its remedy go to stderr, without a traceback."""

    def fails(_: str) -> None:
        raise error

    monkeypatch.setattr("adledger.pipeline.cli.version.metadata.version", fails)
    assert exit_of(monkeypatch, "version") == code
    printed = capsys.readouterr()
    assert printed.out == ""
    expected = "" if code == 130 else "adledger: wrong\n  remedy: fix\n"
    assert printed.err == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("config", "--nonsense"),
        ("query",),
        ("dead-letters", "show", "t", "x", "1"),
        ("ledger", "chekc"),
        (),
    ],
    ids=" ".join,
)
def test_misuse_exits_with_2(monkeypatch, capsys, arguments):
    """An invalid command line is refused on stderr, with 2."""
    assert exit_of(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err


def test_a_misspelt_command_gets_a_suggestion(monkeypatch, capsys):
    """The error suggests the nearest command."""
    assert exit_of(monkeypatch, "qurey") == 2
    assert "'query'" in capsys.readouterr().err


def test_a_closed_pipe_ends_the_command_quietly():
    """`adledger ... | head` ends without a traceback, with a shell's exit code for SIGPIPE."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    code = "import sys; sys.argv = ['adledger', 'config']; from adledger.pipeline.cli import main; main()"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=write_end, stderr=subprocess.PIPE, env=env, check=False
    )
    os.close(write_end)
    assert (ended.returncode, ended.stderr) == (output.BROKEN_PIPE_EXIT_CODE, b"")


def test_config_says_what_is_in_force_and_where_from(monkeypatch):
    """stdout is one JSON object with each setting's value, origin, default and reason, secrets masked."""
    monkeypatch.setenv("ADLEDGER_KAFKA_SASL_PASSWORD", "hush")
    monkeypatch.setenv("ADLEDGER_CLICKHOUSE", "clickhouse://u:hush@h")
    result = run("config", "--set", "batch_rows_max=7", "--json")
    found = json.loads(result.stdout)
    assert "hush" not in result.stdout
    assert found["batch_rows_max"] | {"description": ""} == {
        "value": 7, "from": "flag --set", "default": 131_072, "description": "",
    }  # fmt: skip
    assert found["clickhouse"]["from"] == "environment ADLEDGER_CLICKHOUSE"
    assert found["kafka.sasl.password"]["value"] == "***"
    assert "hush" not in run("config").stdout


def test_config_explains_one_setting():
    """`config NAME` says what it does and how to set it; an unknown one is refused with the nearest."""
    printed = run("config", "batch-age-ms-max").stdout
    assert "freshness" in printed
    assert "ADLEDGER_BATCH_AGE_MS_MAX" in printed
    refused = run("config", "batch_age")
    assert isinstance(refused.exception, UsageError)


def test_json_and_its_contradictions():
    """A flag that contradicts another is refused before anything is opened."""
    for arguments in (
        ("run", "--json"),
        ("query", "SELECT 1", "--json", "--format", "CSV"),
        ("dead-letters", "show", "ad.clicks", "0", "0", "--hex", "--raw"),
        ("dead-letters", "show", "no.such.topic", "0", "0"),
        ("dead-letters", "list", "--reason", "not_jsn"),
    ):
        assert isinstance(run(*arguments).exception, UsageError), arguments


def test_a_clickhouse_that_is_not_there_is_an_error_with_a_remedy():
    """The error says what was tried and what to check."""
    closed = ("--clickhouse", "clickhouse://127.0.0.1:1/?http_port=1")
    for command in (("query", "SELECT 1"), ("status",), ("ledger", "check"), ("migrate",)):
        error = run(*command, *closed).exception
        assert isinstance(error, SinkUnavailable), command
        assert "127.0.0.1" in error.message
        assert error.remedy


def test_tables_line_up(capsysbytes):
    """Numbers are right-aligned with thousands separators, strings left-aligned, without trailing spaces."""
    output.out_table(("name", "n"), [("a", 1_000), ("bcdef", None)])
    assert capsysbytes() == b"name       n\na      1,000\nbcdef      -\n"


@pytest.fixture
def capsysbytes(capfdbinary):
    return lambda: capfdbinary.readouterr().out


def test_bytes_are_shown_without_loss_or_harm():
    """Control characters, escapes and broken UTF-8 never reach the terminal raw."""
    escaped = dead_letters._escaped(b'{"a":\x00\x1b[31m\xff\xc3\xa9\n')
    assert escaped == '{"a":\\x00\\x1b[31m\\xffé\\n'
    assert dead_letters._hex_dump(b"0123456789abcdef\x00") == (
        "000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef\n"
        "000010  00                                               ."
    )


def test_every_reason_of_a_dead_letter_has_a_meaning():
    """Each reason has a name to query by and a meaning to read."""
    from adledger.pipeline.ledger import dead_letters as store
    from adledger.schemas.wire import Malformed

    assert set(store.MEANINGS) == set(Malformed) - {Malformed.OK}
    for code in store.MEANINGS:
        assert store.reason_code(store.reason_name(code)) == code


def test_commands_are_imported_by_name():
    """Each entry of the list leads to a function or a group."""
    for name in COMMANDS:
        assert root._load(name).name == name
    assert isinstance(app, typer.Typer)
