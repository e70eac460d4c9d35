"""Commands as the users of our roles, on ClickHouse's own server: each does its work, and a refusal names the right role."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.schemas.roles import BILLING, FRAUD, OPERATOR, PUBLISHER, WRITER
from adledger.sinks.connection import connect
from tests.support.role_server import RoleServer, as_user, role_server

MODEL = TrafficModel(seed=9, events=2_000, partitions=2, duration_hours=2, malformed_share=0.02)


@dataclass(frozen=True, slots=True)
class Office:
    """A filled database, and the people who work with it, each with the role's user."""

    made: RoleServer
    folder: Path

    def run(self, role: str, *arguments: str, log: Path | None = None) -> Result:
        """Run a command as a role's user."""
        server = self.made.server
        address = f"clickhouse://{role}_1@{server.host}:{server.port}/?http_port={server.http_port}"
        where = {"ADLEDGER_CLICKHOUSE": address, "ADLEDGER_SOURCE": f"files:{log or self.made.log}"}
        config = ("--config", str(self.folder / "adledger.toml"))
        return CliRunner().invoke(app, [*arguments, *config], env=where)

    def done(self, role: str, *arguments: str, log: Path | None = None) -> str:
        """Run a command that succeeds, and return its output."""
        result = self.run(role, *arguments, log=log)
        assert result.exit_code == 0, (role, arguments, result.output, result.exception)
        return result.stdout

    def refusal(self, role: str, *arguments: str, log: Path | None = None) -> AdledgerError:
        """Run a command that is refused for lack of a grant, and return the error."""
        result = self.run(role, *arguments, log=log)
        assert isinstance(result.exception, AdledgerError), (role, arguments, result.output, result.exception)
        assert "Not enough privileges" in result.exception.message, result.exception
        assert f"{role}_1" in result.exception.remedy or "administrator" in result.exception.remedy
        return result.exception


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    (folder / "adledger.toml").write_text('rules = "published"\nwrite_deadline_seconds = 2\n')
    (folder / "rules.toml").write_text(
        load_rules(DEFAULT).text().replace("clicks_max = 12", "clicks_max = 4", 1)
    )
    (folder / "publishers.csv").write_text("publisher_id,status,name,since\n1042,active,Example,2026-11-20\n")
    with role_server(folder, MODEL) as made:
        yield Office(made, folder)


def test_who_reads_what(office: Office) -> None:
    """Invoices, investigations and operation each read with the commands of their work."""
    letters = json.loads(office.done(FRAUD, "dead-letters", "list", "--json"))["dead_letters"]
    first = letters[0]
    offset = (first["topic"], str(first["partition"]), str(first["offset"]))
    shown = office.run(FRAUD, "dead-letters", "show", *offset, "--raw")
    assert shown.stdout_bytes == bytes.fromhex(first["value_hex"])
    office.done(FRAUD, "ledger", "check")
    office.done(BILLING, "ledger", "check", "--ledger-only")
    office.done(BILLING, "status")
    statement = json.loads(
        office.done(BILLING, "query", "SELECT sum(events) AS n FROM v_statement", "--json")
    )
    assert int(statement["data"][0]["n"]) > 0
    for command in (
        ("status",),
        ("lane", "status"),
        ("rules", "status"),
        ("publishers", "list"),
        ("rules", "history"),
    ):
        office.done(OPERATOR, *command)
    office.done(WRITER, "retention", "plan")
    office.done(PUBLISHER, "query", "SELECT * FROM v_statement")


def test_a_refusal_names_the_role_that_may(office: Office) -> None:
    """Each command beyond a role says which grant is missing, and who has it."""
    rules = str(office.folder / "rules.toml")
    cases = [
        (OPERATOR, ("ledger", "check"), FRAUD),
        (OPERATOR, ("query", "SELECT user_hash FROM events"), FRAUD),
        (BILLING, ("query", "SELECT * FROM v_events"), FRAUD),
        (BILLING, ("dead-letters", "list"), FRAUD),
        (BILLING, ("rules", "status"), FRAUD),
        (BILLING, ("rules", "publish", rules, "--reason", "x"), OPERATOR),
        (FRAUD, ("rules", "publish", rules, "--reason", "x"), OPERATOR),
        (FRAUD, ("publishers", "import", str(office.folder / "publishers.csv"), "--reason", "x"), OPERATOR),
        (WRITER, ("rules", "publish", rules, "--reason", "x"), OPERATOR),
        (PUBLISHER, ("status",), BILLING),
        (PUBLISHER, ("query", "SELECT text FROM rules"), OPERATOR),
    ]  # fmt: skip
    for role, command, who in cases:
        assert f" {who} " in office.refusal(role, *command).remedy, (role, command)


def test_an_operator_sees_dead_letters_without_their_bytes(office: Office) -> None:
    """Offset, reason and counts are the fraud analyst's; key, value and what is read from them are not shown, and both
    commands name the role that may see them.
    """
    role = f"use a user with the role {FRAUD} (`adledger roles sql` prints it)"
    full, bare = (json.loads(office.done(who, "dead-letters", "list", "--json")) for who in (FRAUD, OPERATOR))
    assert bare["counts"] == full["counts"]
    assert sum(f["records"] for f in bare["faults"]) == sum(f["records"] for f in full["faults"]) > 0
    assert {f["reason"] for f in bare["faults"]} == set(full["counts"])
    hidden = {
        "field", "found", "allowed", "publisher_id", "accepted_by_this_release", "key_hex", "value_hex", "value_text",
    }  # fmt: skip
    for mine, theirs in zip(bare["dead_letters"], full["dead_letters"], strict=True):
        assert mine == {name: None if name in hidden else value for name, value in theirs.items()}
    first = bare["dead_letters"][0]
    assert role in office.run(OPERATOR, "dead-letters", "list").stderr
    assert role not in office.run(FRAUD, "dead-letters", "list").stderr

    where = ("dead-letters", "show", first["topic"], str(first["partition"]), str(first["offset"]))
    shown = office.done(OPERATOR, *where)
    assert f"reason    {first['reason']}: " in shown
    assert role in shown
    assert "value " not in shown
    assert json.loads(office.done(OPERATOR, *where, "--json")) == first
    for option in ("--raw", "--hex"):
        refused = office.run(OPERATOR, *where, option).exception
        assert isinstance(refused, AdledgerError)
        assert refused.remedy == role


def test_an_operator_resolves_a_halted_lane_and_publishes_rules(office: Office) -> None:
    """Rows of a batch without an intent, then a log that is not the ledger's: for each the operator writes the override,
    others are refused, and the worker goes on as pipeline_writer, with the rules that the operator published.
    """
    halt_with_leftovers(office)
    resolve = ("lane", "resolve", "0", "--reason", "ticket 7", "--execute")
    assert f" {OPERATOR} " in office.refusal(FRAUD, *resolve).remedy
    office.done(OPERATOR, "lane", "resolve", "0", "--reason", "ticket 7", "--dry-run")
    office.done(OPERATOR, *resolve)
    office.done(WRITER, "run", "--until-caught-up")

    office.done(OPERATOR, "rules", "publish", str(office.folder / "rules.toml"), "--reason", "tighter")
    office.done(
        OPERATOR, "publishers", "import", str(office.folder / "publishers.csv"), "--reason", "contracts"
    )
    other = office.folder / "another-log"
    with open_log(other, MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    for lane in range(MODEL.partitions):
        assert (
            f" {OPERATOR} "
            in office.refusal(
                FRAUD, "lane", "skip", str(lane), "--reason", "x", "--execute", log=other
            ).remedy
        )
        office.done(OPERATOR, "lane", "skip", str(lane), "--reason", "moved", "--execute", log=other)
    office.done(WRITER, "run", "--until-caught-up", log=other)

    office.done(FRAUD, "ledger", "check")
    with connect(as_user(office.made.server, f"{OPERATOR}_1")) as client:
        (published,), (used,) = client.execute("SELECT max(version) FROM adledger.rules"), client.execute(
            "SELECT uniqExact(judge_version) FROM adledger.ledger WHERE records_received > 0")  # fmt: skip
        assert published[0] > 0
        assert used == (2,), "the published set evaluated batches, after the shipped one"
        assert client.execute("SELECT count() FROM adledger.dead_letters WHERE offset = 5000") == [(0,)]


def halt_with_leftovers(office: Office) -> None:
    """Store a row of lane 0's next batch, which was never intended, as an admin may by mistake."""
    with connect(as_user(office.made.server, "default")) as client:
        client.execute(
            "INSERT INTO adledger.dead_letters (lane, batch_no, send_by, topic, offset, log_time, lane_clock, reason_code, "
            "key, value) SELECT 0, max(batch_no) + 1, toUnixTimestamp(now()) + 1, 0, 5000, now(), now(), 1, 'k', 'v' "
            "FROM adledger.ledger WHERE lane = 0"
        )
    halted = office.run(OPERATOR, "lane", "status")
    assert halted.exit_code == 1, halted.output
    assert "dead_letters holds rows of batch" in halted.output


def test_workers_and_migrations_of_other_roles_end_with_a_remedy(office: Office) -> None:
    """`run` as a reader is refused before anything is written, by each missing grant, though the server hides the tables
    from it; migrating is an administrator's work.
    """
    ended = office.run(BILLING, "run", "--until-caught-up").exception
    assert isinstance(ended, AdledgerError)
    assert "the user billing_reader_1 lacks " in ended.message
    assert "INSERT ON adledger.events" in ended.message
    assert "there is no table" not in ended.message
    assert f"the role {WRITER}" in ended.remedy
    refused = office.refusal(WRITER, "migrate", "--database", "another")
    assert "administrator" in refused.remedy
