"""Extras: a command that needs one names it, and the list is that of pyproject.toml."""

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from adledger.pipeline import extras
from adledger.pipeline.cli.clickhouse import serve
from adledger.pipeline.cli.demo import demo
from adledger.pipeline.cli.loadtest import loadtest
from adledger.pipeline.errors import UsageError
from adledger.sinks.embedded.launch import EmbeddedServer

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text("utf-8"))


@pytest.fixture
def _nothing_installed(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda _: None)


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize(
    "command",
    [lambda folder: demo(data_dir=folder), serve, EmbeddedServer.start],
    ids=["demo", "serve", "start"],
)  # fmt: skip
def test_a_command_without_its_extra_names_it(tmp_path, command):
    """The error names what is missing, what needs it, and the install command; nothing was created before."""
    with pytest.raises(UsageError, match="needs chdb, which this installation does not have") as refused:
        command(tmp_path / "new")
    assert refused.value.remedy == "pip install 'adledger[embedded]'"
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize(
    "arguments",
    [["run", "steady-day", "--target", "local"], ["verify", "last"], ["report", "last"], ["compare", "a", "--against", "b"]],
    ids=["run", "verify", "report", "compare"],
)  # fmt: skip
def test_a_load_test_without_its_extra_names_it(tmp_path, arguments):
    """Before a run folder is created or read, the error names the missing modules and the install command."""
    runs = tmp_path / "runs"
    refused = CliRunner().invoke(loadtest, [*arguments, "--runs", str(runs)]).exception
    assert isinstance(refused, UsageError)
    assert refused.message.startswith(f"adledger loadtest {arguments[0]} needs hdrh, jinja2, scipy")
    assert refused.remedy == "pip install 'adledger[loadtest]'"
    assert not runs.exists()


def test_each_extra_installs_the_modules_that_it_is_asked_for():
    """The modules of an extra come from the packages that pyproject.toml lists for it, one or more from each."""
    distributions = packages_distributions()
    for extra, modules in extras.EXTRAS.items():
        named = {Requirement(r).name.lower() for r in PYPROJECT["project"]["optional-dependencies"][extra]}
        assert {d.lower() for m in modules for d in distributions[m] if d.lower() in named} == named, extra


def test_with_all_extras_nothing_is_refused():
    """With all extras installed every command runs."""
    for extra in extras.EXTRAS:
        extras.require(extra, "a test")
