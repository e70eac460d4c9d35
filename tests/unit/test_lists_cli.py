"""`adledger lists`: its output and its exit codes."""

import json

import pytest
from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.lists.facts import PACKAGED
from tests.unit.test_lists_deployment import GOOD

AS_OF = ("--as-of", "2026-11-23")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty directory; raises the AdledgerError that main() would print."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["lists", *arguments])


def test_status_names_every_list(run, tmp_path):
    """The table has one row for each list, the deployment's included; the exit code is 0 while all are usable."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/office.toml").write_text(GOOD, "utf-8")
    found = run("status", *AS_OF, "--set", "lists_dir=mine")
    assert found.exit_code == 0
    rows = [line.split()[0] for line in found.stdout.splitlines()]
    assert rows == ["list", *PACKAGED, "office", "lists"]


def test_status_of_old_lists_fails_and_says_what_to_do(run):
    """A list beyond its age limit makes the exit code 1, and stderr names the list, its limit and the remedy."""
    found = run("status", "--as-of", "2040-01-01", "--set", "list_age_days_max=30")
    assert found.exit_code == 1
    assert "older than 30 days" in found.stderr
    assert "upgrade" in found.stderr


def test_status_as_json_is_one_object(run):
    """--json has the version of all lists, and for each its state and origin."""
    found = json.loads(run("status", *AS_OF, "--json").stdout)
    assert found["as_of"] == "2026-11-23"
    assert len(found["lists_version"]) == 16
    by_name = {each["name"]: each for each in found["lists"]}
    assert by_name.keys() == set(PACKAGED)
    assert all(each["licence"] and each["source"] and each["entries"] for each in by_name.values())


def test_lint_checks_every_file(run, tmp_path):
    """Each file gets its result; an invalid one makes the exit code 1 and is named with its line."""
    (tmp_path / "good.toml").write_text(GOOD, "utf-8")
    (tmp_path / "bad.toml").write_text(GOOD.replace("allow", "maybe"), "utf-8")
    assert run("lint", "good.toml", *AS_OF).exit_code == 0
    found = run("lint", "bad.toml", "good.toml", "absent.toml", *AS_OF)
    assert found.exit_code == 1
    assert found.stdout == "good.toml: office 3, 5 entries\n"
    assert "bad.toml:6: verdict" in found.stderr
    assert "absent.toml can't be read" in found.stderr
    as_json = json.loads(run("lint", "bad.toml", "good.toml", *AS_OF, "--json").stdout)
    assert not as_json["fine"]
    assert [("wrong" in each) for each in as_json["files"]] == [True, False]


def test_lint_without_a_file_is_misuse(run):
    """The exit code is 2, as for any command."""
    assert run("lint").exit_code == 2


def test_status_with_an_invalid_list_fails(run, tmp_path):
    """An invalid file of the deployment is an error, not half a status."""
    (tmp_path / "bad.toml").write_text(GOOD.replace("allow", "maybe"), "utf-8")
    found = run("status", *AS_OF, "--set", f"lists_dir={tmp_path}")
    assert isinstance(found.exception, AdledgerError)
    assert found.exception.exit_code == 2
