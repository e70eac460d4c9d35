"""A worker bills exactly what an import announced: small hostile files, through the printed commands, to the tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from adledger.schemas.classes import Class
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import adledger

CASES = Path(__file__).parents[1] / "data" / "imports"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


class Deployment:
    """A log in a folder, and a database of its own."""

    def __init__(self, folder: Path, server: EmbeddedServer, name: str) -> None:
        self.folder, self.log, self.name, self.runs = folder, folder / "log", name, 0
        self.here = [
            "--clickhouse",
            f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}",
            "--database",
            name,
        ]
        self.server = server

    def command(self, *arguments: str, code: int = 0) -> str:
        self.runs += 1
        ended = adledger(self.folder / str(self.runs), *arguments)
        assert ended.process.returncode == code, ended.err
        return ended.out + ended.err

    def bring(self, case: str, format_name: str, *more: str, code: int = 0) -> str:
        to = f"files:{self.log}"
        return self.command(
            "import", str(CASES / case), "--format", format_name, "--to", to, *more, code=code
        )

    def run(self, *more: str) -> dict[str, int]:
        """Bill what the log has; return the classes of the ledger."""
        self.command(
            "run",
            "--source",
            f"files:{self.log}",
            *self.here,
            "--until-caught-up",
            "--set",
            "rules=none",
            *more,
        )
        with connect_to(self.server) as client:
            rows = client.execute(f"SELECT class_code, count() FROM {self.name}.events GROUP BY 1")
            [(malformed,)] = client.execute(f"SELECT count() FROM {self.name}.dead_letters")
        return {Class(code).name.lower(): count for code, count in rows} | {"malformed": malformed}


def connect_to(server: EmbeddedServer) -> Client:
    from adledger.pipeline.addresses import ServerAddress

    return connect(ServerAddress(server.host, server.port, server.http_port))


@pytest.fixture
def made(tmp_path: Path, server: EmbeddedServer) -> Deployment:
    deployment = Deployment(tmp_path, server, f"d_{uuid4().hex}")
    deployment.command("migrate", *deployment.here)
    return deployment


def test_a_line_that_is_fixed_later_is_billed_by_the_printed_settings(made):
    """The broken file is written and billed; the fixed one is refused until the printed settings are used; then all 15
    lines are billed.
    """
    assert "--unreadable-max 7%" in made.bring("quote_broken.log", "access-log", "--partitions", "1", code=1)
    made.bring("quote_broken.log", "access-log", "--partitions", "1", "--unreadable-max", "7%")
    assert made.run() == {"billable": 14, "malformed": 1}
    output = made.bring("quote_fixed.log", "access-log", code=1)
    settings = re.findall(r"--set|(?<=--set )\w+_hours=\d+", output)
    assert len(settings) == 4, output
    made.bring("quote_fixed.log", "access-log", *settings)
    assert made.run(*settings) == {"billable": 15, "duplicate": 14, "malformed": 1}
    made.command("ledger", "check", *made.here)


@pytest.mark.parametrize(
    ("case", "more", "classes"),
    [
        ("microseconds.ndjson", [], {"billable": 9, "malformed": 1}),
        ("future_time.ndjson", ["--sort"], {"billable": 10, "malformed": 0}),
    ],
)
def test_bad_times_do_not_advance_the_watermark_in_the_tables(made, case, more, classes):
    """An impossible time is one dead letter; a far-future one comes last when the refusal's remedy is followed."""
    made.bring(case, "wire", "--partitions", "1", *more)
    assert made.run() == classes
