"""Logins and certificates against a real broker: what works, and how each failure is reported."""

import asyncio
import re
from contextlib import suppress

import pytest

from adledger.loadtest.lab.broker import Listener
from adledger.pipeline.errors import LogError
from adledger.pipeline.importing import import_into
from adledger.pipeline.importing.refusing import Limits
from adledger.pipeline.importing.run import ImportOptions
from adledger.pipeline.log.kafka.writer import KafkaLogWriter
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.properties import client_options
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.settings import Settings
from tests.support.brokers import running_broker
from tests.support.certificates import CertificateAuthority

HOST = "127.0.0.1"
USER, PASSWORD = "ads", "s3cret"
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


def tls(certificate, ca, **more):
    return {
        "ssl.keystore.type": "PEM", "ssl.keystore.location": str(certificate.both),
        "ssl.truststore.type": "PEM", "ssl.truststore.location": str(ca.pem),
        **{name.replace("_", "."): value for name, value in more.items()},
    }  # fmt: skip


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory, ca):
    """One broker with a listener for each authentication: login over TLS, client certificates, and two bad certificates."""
    good = ca.issue(HOST, file="broker")
    login = {"sasl.enabled.mechanisms": "SCRAM-SHA-512", "scram-sha-512.sasl.jaas.config": SCRAM_LOGIN}
    listeners = (
        Listener(),
        Listener("SCRAM", "SASL_SSL", tls(good, ca) | login),
        Listener("MUTUAL", "SSL", tls(good, ca, ssl_client_auth="required")),
        Listener("EXPIRED", "SSL", tls(ca.issue(HOST, file="expired", expired=True), ca)),
        Listener("OTHER", "SSL", tls(ca.issue("kafka.example", file="other"), ca)),
    )
    users = ("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]")
    folder = tmp_path_factory.mktemp("secured")
    with running_broker(folder, listeners=listeners, format_arguments=users) as running:
        yield running


def scram(ca, **changes):
    return {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": USER,
        "sasl.password": PASSWORD, "ssl.ca.location": str(ca.pem),
    } | {name.replace("_", "."): value for name, value in changes.items()}  # fmt: skip


def certified(ca, certificate):
    return {
        "security.protocol": "SSL", "ssl.ca.location": str(ca.pem),
        "ssl.certificate.location": str(certificate.chain), "ssl.key.location": str(certificate.key),
    }  # fmt: skip


async def test_a_login_over_tls_and_a_certificate_both_work(broker, ca, tmp_path):
    """Topics are made, and a file is imported, by SCRAM-SHA-512 over TLS and by a client certificate."""
    path = tmp_path / "lines"
    path.write_bytes(b"{}\n" * 5)
    ways = {"SCRAM": scram(ca), "MUTUAL": certified(ca, ca.issue("client", file="client"))}
    for name, properties in ways.items():
        settings = Settings(
            source=f"kafka://{broker.address(name)}", kafka=properties, topics=(f"events-{name}",)
        )
        await create_topics(settings, partitions=1)
        any_file = ImportOptions(limits=Limits(unreadable_share_max=1.0))
        summary = import_into(
            [path], "wire", lambda s=settings: KafkaLogWriter(s), started_at_ms=1, options=any_file
        )
        assert summary.records == 5


async def refusal(server: str, properties) -> str:
    """Return the error message for a connection with these properties."""
    with pytest.raises(LogError) as refused:
        async with connected(client_options([server], properties)):
            pass
    text = str(refused.value)
    assert refused.value.remedy
    assert PASSWORD not in text
    return text


async def test_each_failure_is_reported_with_its_cause(broker, ca, tmp_path):
    """The error is not "unable to bootstrap" but names certificate, name, login, mechanism or protocol."""
    stranger = CertificateAuthority(tmp_path, "stranger")
    tls_only = {"security.protocol": "SSL", "ssl.ca.location": str(ca.pem)}
    scram_plain = {k: v for k, v in scram(ca).items() if not k.startswith("ssl.")}
    scram_plain["security.protocol"] = "SASL_PLAINTEXT"
    cases = [
        ("EXPIRED", tls_only, "the broker's certificate has expired"),
        ("OTHER", tls_only, "the broker's certificate is for another name"),
        ("MUTUAL", tls_only, "requires a client certificate that it trusts"),
        ("MUTUAL", certified(ca, stranger.issue("client")), "requires a client certificate that it trusts"),
        ("SCRAM", scram(ca, ssl_ca_location=str(stranger.pem)), "signed by a CA that is not trusted here"),
        ("SCRAM", scram(ca, sasl_password="wr0ng"), "refuses the login: wrong user name or password"),
        ("SCRAM", scram(ca, sasl_mechanism="PLAIN"), "does not have this SASL mechanism"),
        ("SCRAM", {}, "kafka.security.protocol to what the listener speaks: it was tried with PLAINTEXT"),
        ("PLAINTEXT", scram_plain, "wants no login there"),
        ("PLAINTEXT", tls_only, "does not speak TLS|closed without an answer"),
    ]  # fmt: skip
    for listener, properties, words in cases:
        # A TLS listener that is spoken to in plain text may wait for more of it.
        message = await refusal(broker.address(listener), {"request.timeout.ms": "3000"} | properties)
        assert re.search(words, message), (listener, message)
        assert "wr0ng" not in message


async def test_a_wrong_advertised_listener_is_named(broker):
    """For a broker that answers and advertises an unreachable address the error names advertised.listeners."""
    from aiokafka import errors

    from adledger.pipeline.log.kafka_admin import failures

    server = await asyncio.start_server(_metadata_of_a_closed_port, HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await failures.explain(errors.NodeNotReadyError(), client_options([f"{HOST}:{port}"], {}))
    assert "the brokers tell clients to use 127.0.0.1:1" in error.message
    assert "advertised.listeners" in error.remedy


async def _metadata_of_a_closed_port(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a broker that advertises port 1."""
    import struct

    from aiokafka.protocol.admin import ApiVersionResponse_v0
    from aiokafka.protocol.metadata import MetadataResponse_v1

    answers = {
        18: ApiVersionResponse_v0(error_code=0, api_versions=[(18, 0, 0), (3, 1, 1)]),
        3: MetadataResponse_v1(brokers=[(1, HOST, 1, None)], controller_id=1, topics=[]),
    }
    with suppress(asyncio.IncompleteReadError):
        while True:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            request = await reader.readexactly(size)
            key, _, correlation = struct.unpack_from(">hhi", request)
            body = struct.pack(">i", correlation) + answers[key].encode()
            writer.write(struct.pack(">i", len(body)) + body)
    writer.close()
