"""A deployment behind logins and certificates, as in production: it works, each mistake is reported, no secret is shown."""

import asyncio
import json
import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from clickhouse_driver.errors import ServerException
from typer.testing import CliRunner

from adledger import __version__
from adledger.loadtest.lab.broker import Listener, LocalBroker
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.addresses import ServerAddress, parse_clickhouse
from adledger.pipeline.cli.app import app
from adledger.pipeline.cli.http_query import run_query
from adledger.pipeline.errors import AdledgerError, SinkUnavailable
from adledger.pipeline.settings import Settings
from adledger.schemas.migrate import migrate
from adledger.schemas.roles import WRITER, RoleTarget
from adledger.sinks.connection import connect
from tests.support.brokers import running_broker
from tests.support.certificates import Certificate, CertificateAuthority
from tests.support.clickhouse_servers import OWN, address_of, running_server, users_xml
from tests.support.commands import Command, adledger, started
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.old_clickhouse import OldServerMissing, old_server
from tests.support.role_server import STRICT, role_users
from tests.support.services import missing
from tests.support.tls_proxy import tls_before

HOST = "127.0.0.1"
USER, PASSWORD, CLICKHOUSE_PASSWORD = "ads", "hunter2-kafka", "hunter3-clickhouse"
SECRETS = (PASSWORD, CLICKHOUSE_PASSWORD, "wr0ng-secret")
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
MODEL = TrafficModel(seed=4, events=20_000, partitions=4)
AT_ONCE = 2


def keystore(certificate: Certificate, ca: CertificateAuthority, **more: str) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM", "ssl.keystore.location": str(certificate.both),
        "ssl.truststore.type": "PEM", "ssl.truststore.location": str(ca.pem),
    } | {name.replace("_", "."): value for name, value in more.items()}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker with a listener for each authentication, and ClickHouse's own server with a user who has a password and the
    role pipeline_writer alone, behind TLS that requires a certificate; and the CAs.
    """

    folder: Path
    broker: LocalBroker
    ca: CertificateAuthority
    stranger: CertificateAuthority
    clickhouse: str
    ground_truth: GroundTruth

    def scram(self, **changes: str) -> dict[str, str]:
        return {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": USER,
            "sasl.password.file": str(self.folder / "kafka-password"), "ssl.ca.location": str(self.ca.pem),
        } | {name.replace("_", "."): value for name, value in changes.items()}  # fmt: skip

    def certified(self, certificate: Certificate) -> dict[str, str]:
        return {
            "security.protocol": "SSL", "ssl.ca.location": str(self.ca.pem),
            "ssl.certificate.location": str(certificate.chain), "ssl.key.location": str(certificate.key),
        }  # fmt: skip

    def config(self, name: str, listener: str, kafka: dict[str, str], **changes: object) -> Path:
        """Write a settings file."""
        values = {
            "source": f"kafka://{self.broker.address(listener)}", "clickhouse": self.clickhouse,
            "topics": ["sec.impressions", "sec.clicks"], "rollups_topic": "sec.rollups", "group": "secured",
            "log_time": "record", "web_host": HOST, "web_port": 0, "rules": "none",
        } | changes  # fmt: skip
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        lines += ["[kafka]", *(f'"{key}" = {json.dumps(value)}' for key, value in kafka.items())]
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join(lines))
        return path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    (folder / "kafka-password").write_text(PASSWORD + "\n")
    (folder / "clickhouse-password").write_text(CLICKHOUSE_PASSWORD + "\n")
    ca, stranger = CertificateAuthority(folder / "ca"), CertificateAuthority(folder / "stranger", "stranger")
    host = ca.issue(HOST, file="host")
    login = {"sasl.enabled.mechanisms": "SCRAM-SHA-512", "scram-sha-512.sasl.jaas.config": SCRAM_LOGIN}
    listeners = (
        Listener(),
        Listener("SCRAM", "SASL_SSL", keystore(host, ca) | login),
        Listener("MUTUAL", "SSL", keystore(host, ca, ssl_client_auth="required")),
        Listener("EXPIRED", "SASL_SSL", keystore(ca.issue(HOST, file="expired", expired=True), ca) | login),
        Listener("OTHER", "SASL_SSL", keystore(ca.issue("kafka.example", file="other"), ca) | login),
    )
    kafka_users = ("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]")
    client = ca.issue("worker", file="worker")
    with ExitStack() as stack:
        broker = stack.enter_context(
            running_broker(folder / "kafka", listeners=listeners, format_arguments=kafka_users)
        )
        users = {"users.xml": role_users(RoleTarget("adledger"), {USER: (CLICKHOUSE_PASSWORD, WRITER)})}
        server = stack.enter_context(running_server(OWN, folder / "clickhouse", files=users, more=STRICT))
        with connect(address_of(server)) as admin:
            migrate(admin, database="adledger", release=__version__)
        native = stack.enter_context(tls_before(server.port, host, clients=ca))
        http = stack.enter_context(tls_before(server.http_port, host, clients=ca))
        address = (
            f"clickhouse://ads@{HOST}:{native}/?secure=1&http_port={http}&ca={ca.pem}&certificate={client.chain}"
            f"&key={client.key}&password_file={folder / 'clickhouse-password'}"
        )
        here = Secured(folder, broker, ca, stranger, address, GroundTruth)  # type: ignore[arg-type]
        config = here.config("create", "SCRAM", here.scram())
        made = CliRunner().invoke(app, ["topics", "create", "--partitions", "4", "--config", str(config)])
        assert made.exit_code == 0, (made.output, made.exception)
        settings = Settings(
            source=f"kafka://{broker.address('SCRAM')}", kafka=here.scram(), topics=("sec.impressions", "sec.clicks"),
            rollups_topic="sec.rollups", log_time="record",
        )  # fmt: skip
        yield Secured(folder, broker, ca, stranger, address, write_traffic_to_kafka(MODEL, settings))


def shows_no_secret(*texts: str) -> None:
    for secret in SECRETS:
        assert not any(secret in text for text in texts), f"{secret} is shown"


def test_a_whole_worker_behind_login_and_certificates(secured: Secured):
    """With SCRAM over TLS to Kafka (Faust's part too) and mutual TLS to ClickHouse, the tables equal the ground truth,
    and no secret is in any output, page or log file, even at level DEBUG.
    """
    config = str(secured.config("worker", "SCRAM", secured.scram()))
    folder, log = secured.folder / "worker", secured.folder / "worker.log"
    arguments = ("run", "--config", config, "--loglevel", "debug", "--logfile", str(log))
    with started(folder, *arguments) as worker:
        worker.until(lambda: log.exists() and "pages at http" in log.read_text())
        found = re.search(r"pages at (http://\S+/)\"", log.read_text())
        assert found, log.read_text()

        def page(name: str) -> str:
            try:
                with urllib.request.urlopen(found[1] + name, timeout=10) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        events = re.compile(r'adledger_events_total\{class="\w+"\} ([\d.]+)')
        worker.until(lambda: sum(map(float, events.findall(page("metrics")))) >= MODEL.events)
        heard = re.compile(r'adledger_live_messages_total\{outcome="absorbed"\} [1-9]')
        worker.until(
            lambda: heard.search(page("metrics")) is not None
        )  # by Faust's producer's topic and its consumer
        worker.until(lambda: '"ready":true' in page("readyz").replace(" ", ""))
        pages = [page(name) for name in ("readyz", "livez", "lanes", "metrics", "")]
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.err
    shows_no_secret(worker.out, worker.err, log.read_text(), *pages)
    with connect(parse_clickhouse(secured.clickhouse)) as client:  # type: ignore[arg-type]
        report = verify(secured.ground_truth, client, "adledger")
    assert report.equal, report


def test_every_command_reaches_both_servers(secured: Secured, tmp_path: Path):
    """They also connect with a client certificate to Kafka, and by HTTPS where a command speaks HTTP."""
    certificate = secured.ca.issue("client", file="client")
    config = str(
        secured.config(
            "commands", "MUTUAL", secured.certified(certificate), topics=["sec.other"], group="other"
        )
    )
    lines = tmp_path / "lines"
    lines.write_bytes(b"{}\n" * 5)
    commands = (
        ("topics", "create", "--partitions", "1"), ("topics", "check"),
        ("import", str(lines), "--format", "wire", "--to", f"kafka://{secured.broker.address('MUTUAL')}",
         "--unreadable-max", "100%"),
        ("migrate",), ("ledger", "check"), ("status",), ("query", "SELECT 1"), ("config", "--json"), ("dead-letters", "list"),
    )  # fmt: skip
    for command in commands:
        done = CliRunner().invoke(app, [*command, "--config", config])
        assert done.exit_code == 0, (command, done.output, done.exception)
        shows_no_secret(done.output)


def test_each_mistake_ends_a_worker_with_a_remedy(secured: Secured):
    """The error comes within seconds, not after many attempts, with cause and remedy, without traceback or secret."""
    good, address = secured.scram(), secured.clickhouse
    wrong = {k: v for k, v in good.items() if k != "sasl.password.file"} | {"sasl.password": "wr0ng-secret"}
    stranger = str(secured.stranger.pem)
    cases: list[tuple[str, str, dict[str, str], str, str]] = [
        ("password", "SCRAM", wrong, address, "wrong user name or password"),
        ("expired", "EXPIRED", good, address, "the broker's certificate has expired"),
        ("clickhouse-ca", "SCRAM", good, address.replace(str(secured.ca.pem), stranger), "CA that is not trusted here"),
        ("clickhouse-plain", "SCRAM", good, re.sub(r"\?.*", "", address), "expects TLS, and the address has none"),
    ]  # fmt: skip

    def run(case: tuple[str, str, dict[str, str], str, str]) -> Command:
        name, listener, kafka, clickhouse, _ = case
        config = secured.config(name, listener, kafka, clickhouse=clickhouse)
        return adledger(secured.folder / f"run-{name}", "run", "--until-caught-up", "--config", str(config))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for case, ended in zip(cases, pool.map(run, cases), strict=True):
            assert ended.process.returncode in {1, 2}, (case, ended.err)
            assert case[4] in ended.err, (case, ended.err)
            assert "remedy:" in ended.err, (case, ended.err)
            assert "Traceback" not in ended.err, (case, ended.err)
            assert "; try 2 of" not in ended.err, (case, "a refusal is not tried again")
            shows_no_secret(ended.out, ended.err)


def test_each_mistake_ends_a_command_with_a_remedy(secured: Secured):
    """Commands that query Kafka, and ClickHouse by its native protocol and by HTTPS, report the same errors."""
    good, address = secured.scram(), secured.clickhouse
    plain = {k: v for k, v in good.items() if not k.startswith("ssl.")} | {
        "security.protocol": "SASL_PLAINTEXT"
    }
    tls_only = {"security.protocol": "SSL", "ssl.ca.location": str(secured.ca.pem)}
    expired = secured.certified(secured.ca.issue("old", file="old", expired=True))
    no_certificate = re.sub(r"&certificate=[^&]*&key=[^&]*", "", address)
    topics, status, query = ("topics", "check"), ("status",), ("query", "SELECT 1")
    cases: list[tuple[tuple[str, ...], str, dict[str, str], str, str]] = [
        (topics, "SCRAM", secured.scram(ssl_ca_location=str(secured.stranger.pem)), address, "CA that is not trusted here"),
        (topics, "OTHER", good, address, "the broker's certificate is for another name"),
        (topics, "MUTUAL", tls_only, address, "requires a client certificate"),
        (topics, "MUTUAL", expired, address, "expired"),
        (topics, "PLAINTEXT", plain, address, "wants no login there"),
        (status, "SCRAM", good, no_certificate, "requires a client certificate"),
        (query, "SCRAM", good, no_certificate, "requires a client certificate"),
        (query, "SCRAM", good, address.replace(str(secured.ca.pem), str(secured.stranger.pem)), "not trusted here"),
        (status, "SCRAM", good, address + "-none", "clickhouse-password-none can't be read"),
    ]  # fmt: skip
    for i, (command, listener, kafka, clickhouse, words) in enumerate(cases):
        config = secured.config(f"command-{i}", listener, kafka, clickhouse=clickhouse)
        done = CliRunner().invoke(app, [*command, "--config", str(config)])
        assert isinstance(done.exception, AdledgerError), (command, words, done.output, done.exception)
        assert words in str(done.exception), (command, done.exception)
        assert done.exception.remedy or "remedy:" in done.exception.message
        shows_no_secret(done.output, str(done.exception), repr(done.exception))


def test_the_doctor_names_a_refused_login_and_checks_the_rest(secured: Secured):
    """For a wrong password to Kafka it names the file that has it, and still checks ClickHouse."""
    (secured.folder / "wrong-password").write_text("wr0ng-secret")
    kafka = secured.scram(sasl_password_file=str(secured.folder / "wrong-password"))
    config = str(secured.config("doctor", "SCRAM", kafka))
    done = CliRunner().invoke(app, ["doctor", "--config", config])
    assert done.exit_code == 1, done.exception
    assert "wrong user name or password" in done.output
    assert "not checked: no broker can be used" in done.output
    assert re.search(r"✓ .*ClickHouse \d+\.\d+", done.output), done.output
    shows_no_secret(done.output)


def test_a_secret_from_the_environment_works_and_is_not_shown(secured: Secured):
    """ADLEDGER_KAFKA_SASL_PASSWORD and a password in ADLEDGER_CLICKHOUSE are used, and masked wherever settings are
    shown.
    """
    kafka = {k: v for k, v in secured.scram().items() if k != "sasl.password.file"}
    config = str(secured.config("environment", "SCRAM", kafka))
    lines = (secured.folder / "environment.toml").read_text().splitlines()
    (secured.folder / "environment.toml").write_text(
        "\n".join(line for line in lines if not line.startswith("clickhouse"))
    )
    address = re.sub(r"&password_file=[^&]*", "", secured.clickhouse).replace(
        "ads@", f"ads:{CLICKHOUSE_PASSWORD}@"
    )
    environment = {"ADLEDGER_KAFKA_SASL_PASSWORD": PASSWORD, "ADLEDGER_CLICKHOUSE": address}
    for command in (("doctor", "--json"), ("config", "--json"), ("config",), ("topics", "check")):
        done = CliRunner().invoke(app, [*command, "--config", config], env=environment)
        assert done.exit_code == 0, (done.output, done.exception)
        shows_no_secret(done.output)


def test_no_structure_shows_a_secret_in_its_repr(secured: Secured):
    """A traceback, a debugger or a log line that prints settings, clients or options shows no secret."""
    from adledger.pipeline.log.kafka_admin.properties import client_options, faust_credentials

    kafka = {k: v for k, v in secured.scram().items() if k != "sasl.password.file"} | {
        "sasl.password": PASSWORD
    }
    address = f"clickhouse://ads:{CLICKHOUSE_PASSWORD}@{HOST}:1/"
    settings = Settings(source="kafka://h:1", clickhouse=address, kafka=kafka)
    with pytest.raises(AdledgerError) as refused, connect(settings.clickhouse) as client:  # type: ignore[arg-type]
        client.execute("SELECT 1")
    printed = [
        settings,
        settings.clickhouse,
        client_options(["h:1"], kafka),
        faust_credentials(kafka),
        client.connection,
        refused.value,
    ]
    shows_no_secret(*map(repr, printed), *map(str, printed))


def test_an_app_is_made_with_the_login(secured: Secured):
    """Faust's own consumer and producer log in as ours do, and nothing in the app connects to Kafka without a login."""
    from adledger.pipeline.app import create_app

    settings = Settings(source=f"kafka://{secured.broker.address('SCRAM')}", kafka=secured.scram())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        credentials = create_app(settings).conf.broker_credentials
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    shows_no_secret(repr(credentials), str(credentials))


def test_a_server_of_its_own_speaks_tls(tmp_path: Path):
    """With ClickHouse's own TLS and password, not a proxy's, native and HTTPS work from a password file, and each mistake
    is reported.
    """
    ca, stranger = CertificateAuthority(tmp_path / "ca"), CertificateAuthority(tmp_path / "other", "other")
    own, client = ca.issue(HOST, file="server"), ca.issue("client", file="client")
    native, https = _free_ports(2)
    configuration = (
        f"<tcp_port_secure>{native}</tcp_port_secure><https_port>{https}</https_port><openSSL><server>"
        f"<certificateFile>{own.chain}</certificateFile><privateKeyFile>{own.key}</privateKeyFile><caConfig>{ca.pem}</caConfig>"
        "<verificationMode>strict</verificationMode><loadDefaultCAFile>false</loadDefaultCAFile></server></openSSL>"
    )
    secret = tmp_path / "password"
    secret.write_text(CLICKHOUSE_PASSWORD)
    certified = f"&certificate={client.chain}&key={client.key}"
    tls = f"clickhouse://{HOST}:{native}/?secure=1&http_port={https}&ca={ca.pem}"
    login = f"&password_file={secret}"
    try:
        with old_server(tmp_path / "server", more=configuration, password=CLICKHOUSE_PASSWORD) as server:
            assert asked_both(tls + certified + login) == ([(1,)], b"1\n")
            mistakes = {
                tls + login: "requires a client certificate",
                tls + certified: "refuses 'default'",
                tls.replace(str(ca.pem), str(stranger.pem)) + login: "CA that is not trusted here",
                f"clickhouse://{HOST}:{native}/": "expects TLS",
                tls.replace(str(native), str(server.port)): "does not speak TLS",
            }
            for address, words in mistakes.items():
                with pytest.raises(SinkUnavailable, match=words) as raised:
                    asked_both(address)
                assert raised.value.refused, "a command need not try again"
                shows_no_secret(str(raised.value), repr(raised.value))
    except OldServerMissing as error:
        missing("clickhouse-server", error)


def test_clickhouses_own_logins(tmp_path: Path):
    """With its own users and passwords behind TLS, native and HTTPS work; both refuse a wrong password and an unknown
    user with the remedy, and the server answers afterwards.
    """
    ca = CertificateAuthority(tmp_path / "ca")
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(CLICKHOUSE_PASSWORD + "\n")
    wrong.write_text("wr0ng-secret")
    users = {"users.xml": users_xml(ads=CLICKHOUSE_PASSWORD)}
    with (
        running_server(OWN, tmp_path / "server", files=users) as server,
        tls_before(server.port, ca.issue(HOST, file="server")) as native,
        tls_before(server.http_port, ca.issue(HOST, file="https")) as https,
    ):

        def address(user: str, password: Path) -> str:
            return (
                f"clickhouse://{user}@{HOST}:{native}/?secure=1&http_port={https}&ca={ca.pem}"
                f"&password_file={password}"
            )

        assert asked_both(address("ads", right)) == ([(1,)], b"1\n")
        for user, password in (("ads", wrong), ("stranger", right)):
            refused, pid = parse_clickhouse(address(user, password)), server.pid
            assert isinstance(refused, ServerAddress)
            with pytest.raises(AdledgerError, match=f"{user}|[Aa]uthentication") as by_http:
                b"".join(run_query(refused, "SELECT 1", database="default", output_format="CSV"))
            with (
                pytest.raises(SinkUnavailable, match=f"refuses '{user}'") as raised,
                connect(refused) as client,
            ):
                client.execute("SELECT 1")
            assert raised.value.refused, "a command need not try again"
            assert "user and password" in raised.value.remedy
            shows_no_secret(str(by_http.value), str(raised.value), repr(raised.value))
            server.await_restart(pid)  # a failed native login ends clickhouse-local, no clickhouse-server
        assert asked_both(address("ads", right)) == ([(1,)], b"1\n")


def test_clickhouses_own_ports_without_tls(clickhouse_server: ClickHouseServer):
    """The server as these tests run it opens no TLS port, whatever its configuration: hence the proxies above. A release
    that opens one fails here, and then needs no proxy.
    """
    with connect(address_of(clickhouse_server)) as client:
        for port in ("TCP SECURE", "HTTPS"):
            with pytest.raises(ServerException, match="supports only TCP and HTTP listeners"):
                client.execute(f"SYSTEM START LISTEN {port}")


def asked_both(address: str) -> tuple[object, bytes]:
    """Query by the native protocol and by HTTP."""
    server = parse_clickhouse(address)
    assert isinstance(server, ServerAddress)
    with connect(server) as client:
        answer = client.execute("SELECT 1")
    return answer, b"".join(run_query(server, "SELECT 1", database="default", output_format="CSV"))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]
