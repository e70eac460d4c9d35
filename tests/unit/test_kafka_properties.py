"""Kafka's client properties are understood as Kafka understands them, or refused whole, with key and remedy."""

import logging
import ssl
import time
from contextlib import suppress

import pytest
from aiokafka.protocol.admin import SaslAuthenticateRequest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import UsageError
from adledger.pipeline.log.kafka_admin.properties import client_options, consumer_options, faust_credentials
from adledger.pipeline.log.kafka_admin.tls import certificate_validities, tls_context
from adledger.pipeline.settings import KAFKA_PROPERTIES, Settings
from tests.support.certificates import CertificateAuthority

SERVERS = ("k1:9092", "k2:9092")
SCRAM = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "ads",
    "sasl.password": "s3cret",
}


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


def refused(properties, servers=SERVERS) -> str:
    with pytest.raises(UsageError) as caught:
        consumer_options(servers, properties)
    return str(caught.value)


def test_defaults_are_plaintext_with_our_client_id():
    """Without properties the options are the servers, no security, and a client id to search for in brokers' logs."""
    assert consumer_options(SERVERS, {}) == {
        "bootstrap_servers": list(SERVERS),
        "client_id": "adledger",
        "security_protocol": "PLAINTEXT",
    }


def test_numbers_and_names_are_passed_on():
    """Each property becomes aiokafka's argument of the same words; group properties go to consumers only."""
    common = {"request.timeout.ms": "1", "retry.backoff.ms": "2", "metadata.max.age.ms": "3"}
    group = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "2000", "max.poll.interval.ms": "9"}
    given = common | group | {"client.id": "c", "group.instance.id": "w1", "connections.max.idle.ms": "-1"}
    options = client_options(SERVERS, given)
    assert options == {
        "bootstrap_servers": list(SERVERS), "client_id": "c", "security_protocol": "PLAINTEXT",
        "request_timeout_ms": 1, "retry_backoff_ms": 2, "metadata_max_age_ms": 3, "connections_max_idle_ms": None,
    }  # fmt: skip
    assert consumer_options(SERVERS, given) == options | {
        "session_timeout_ms": 6000, "heartbeat_interval_ms": 2000, "max_poll_interval_ms": 9, "group_instance_id": "w1",
    }  # fmt: skip


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_passwords_log_in_and_are_never_shown(mechanism):
    """User and password reach aiokafka and Faust, and neither options, settings nor Faust's credentials show them."""
    properties = SCRAM | {"sasl.mechanism": mechanism}
    options = client_options(SERVERS, properties)
    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == (mechanism, "ads")
    assert options["sasl_plain_password"] == "s3cret"
    assert options["sasl_plain_password"].encode() == b"s3cret"
    credentials = faust_credentials(properties)
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_PLAINTEXT", mechanism)
    assert (credentials.username, credentials.password) == ("ads", "s3cret")
    for printed in (options, credentials, Settings(kafka=properties)):
        assert "s3cret" not in repr(printed)


def test_a_password_may_come_from_a_file(tmp_path):
    """The file's text without its line break is the password."""
    (tmp_path / "p").write_text("s3 cret\n")
    properties = {k: v for k, v in SCRAM.items() if k != "sasl.password"}
    options = client_options(SERVERS, properties | {"sasl.password.file": str(tmp_path / "p")})
    assert options["sasl_plain_password"] == "s3 cret"


def test_everything_wrong_is_reported_at_once(tmp_path):
    """The error names each wrong property with its remedy, and no secret."""
    text = refused({
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM", "sasl.password": "s3cret",
        "sasl.password.file": str(tmp_path / "none"), "ssl.ca.location": str(tmp_path / "no.pem"),
        "ssl.endpoint.identification.algorithm": "dns", "request.timeout.ms": "soon",
        "session.timeout.ms": "1000", "heartbeat.interval.ms": "1000",
    })  # fmt: skip
    for key in (
        "sasl.mechanism",
        "sasl.password.file",
        "ssl.ca.location",
        "ssl.endpoint",
        "request.timeout.ms",
        "heartbeat",
    ):
        assert f"kafka.{key}" in text
    assert text.count("remedy: ") == 6
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"sasl.username": "u"}, "kafka.sasl.username set, and security.protocol is PLAINTEXT"),
        ({"security.protocol": "SSL", "sasl.mechanism": "PLAIN"}, "kafka.sasl.mechanism set"),
        (SCRAM | {"ssl.key.password": "x"}, "set security.protocol = SASL_SSL, or leave them out"),
        ({"security.protocol": "TLS"}, "write PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
        ({"security.protocol": "SASL_SSL"}, "kafka.sasl.mechanism is not set"),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"},
            "set it, or ADLEDGER_KAFKA_SASL_PASSWORD",
        ),
        (SCRAM | {"sasl.mechanism": "OAUTHBEARER"}, "tokens of a provider are not supported"),
        (SCRAM | {"sasl.mechanism": "GSSAPI"}, "pip install gssapi"),
        ({"session.timeout.ms": "0"}, "not a number of milliseconds"),
        ({"retry.backoff.ms": "²"}, "not a number of milliseconds"),
    ],
)
def test_contradictions_are_refused(properties, words):
    """What Kafka would ignore or fail on later is refused before any connection."""
    assert words in refused(properties)


@given(
    st.dictionaries(
        st.sampled_from([k for k in KAFKA_PROPERTIES if not k.endswith((".location", ".file"))]),
        st.sampled_from(
            ["", "1", "3000", "-1", "PLAIN", "SCRAM-SHA-256", "SSL", "SASL_SSL", "PLAINTEXT", "x"]
        ),
    )
)
def test_any_properties_are_taken_or_refused(properties):
    """No combination of values ends in any error but an AdledgerError."""
    with suppress(UsageError):
        options = consumer_options(SERVERS, properties)
        assert ("ssl_context" in options) == options["security_protocol"].endswith("SSL")


def test_the_logger_never_shows_a_login(caplog):
    """aiokafka logs requests at level DEBUG; the one that carries a password is left out."""
    logger = logging.getLogger("aiokafka.conn")
    with caplog.at_level(logging.DEBUG, "aiokafka.conn"):
        request = SaslAuthenticateRequest(b"\0ads\0s3cret").prepare({36: (0, 1)})
        logger.debug("Request to %s:%d %d: %s", "k", 9092, 1, request)
        logger.debug("Request to %s:%d %d: %s", "k", 9092, 2, "other")
    assert "other" in caplog.text
    assert "s3cret" not in caplog.text


# files


def mtls(certificate, **more):
    return {
        "security.protocol": "SSL",
        "ssl.certificate.location": str(certificate.chain),
        "ssl.key.location": str(certificate.key),
        **{k.replace("_", "."): v for k, v in more.items()},
    }


def test_certificates_are_loaded(ca):
    """CA, certificate and key, in two files or one, encrypted or not, make a context that verifies by default."""
    plain, locked = ca.issue("client", file="plain"), ca.issue("client", file="locked", password="k3y")
    both = {"security.protocol": "SSL", "ssl.certificate.location": str(plain.both)}
    for properties in (mtls(plain), mtls(locked, ssl_key_password="k3y"), both):
        context = client_options(SERVERS, properties | {"ssl.ca.location": str(ca.pem)})["ssl_context"]
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.cert_store_stats()["x509_ca"] == 1, "our CA is trusted, and no other"
    assert faust_credentials(mtls(plain)).protocol.value == "SSL"


def test_hostnames_are_checked_unless_told_not_to(ca):
    """https is Kafka's default; none (librdkafka) and the empty string (Java) turn the check off."""
    for text, checks in (("https", True), ("none", False), ("", False)):
        properties = {"ssl.ca.location": str(ca.pem), "ssl.endpoint.identification.algorithm": text}
        context, found = tls_context(properties)
        assert (context.check_hostname, found) == (checks, [])


def test_unusable_files_are_named(ca, tmp_path):
    """For a file that is missing, expired, locked, of another key or not PEM, the error names the key and a remedy."""
    good, other = ca.issue("client", file="good"), ca.issue("client", file="other")
    old, locked = ca.issue("client", file="old", expired=True), ca.issue("client", file="l", password="k3y")
    garbage = tmp_path / "store.jks"
    garbage.write_bytes(b"\xfe\xed\xfe\xed")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    cases = [
        (mtls(old), "ssl.certificate.location", "expired at"),
        (mtls(locked), "ssl.key.location", "encrypted, and there is no password"),
        (mtls(locked, ssl_key_password="wrong"), "ssl.key.location", "can't be decrypted"),
        (mtls(good) | {"ssl.key.location": str(other.key)}, "ssl.key.location", "not the key of"),
        (mtls(good) | {"ssl.key.location": str(good.chain)}, "ssl.key.location", "no private key in it"),
        (mtls(good) | {"ssl.key.location": str(tmp_path)}, "ssl.key.location", "can't be read"),
        (mtls(good) | {"ssl.ca.location": str(garbage)}, "ssl.ca.location", "a Java key store, not PEM"),
        (mtls(good) | {"ssl.ca.location": str(text)}, "ssl.ca.location", "no certificate in PEM form"),
        (mtls(good) | {"ssl.ca.location": str(tmp_path / "no")}, "ssl.ca.location", "there is no such file"),
        ({"security.protocol": "SSL", "ssl.key.location": "k"}, "ssl.key.location", "set ssl.certificate.location too"),
    ]  # fmt: skip
    for properties, key, words in cases:
        found = refused(properties)
        assert f"kafka.{key}" in found
        assert words in found
        assert "wrong" not in found


def test_validity_is_read_as_openssl_reads_it(ca):
    """The dates that we report agree with Python's ssl on every certificate that it trusts."""
    context = ssl.create_default_context()
    for der, parsed in zip(context.get_ca_certs(binary_form=True), context.get_ca_certs(), strict=True):
        [(begin, end)] = certificate_validities(ssl.DER_cert_to_PEM_cert(der).encode())
        assert begin == ssl.cert_time_to_seconds(parsed["notBefore"])
        assert end == ssl.cert_time_to_seconds(parsed["notAfter"])
    [(begin, end)] = certificate_validities(ca.pem.read_bytes())
    assert begin < time.time() < end


def test_a_certificate_of_tomorrow_is_refused(ca):
    """The error names a wrong clock as a possible cause."""
    good = ca.issue("client", file="early")
    _, found = tls_context(mtls(good), now=time.time() - 90 * 86_400)
    assert any("not valid before" in finding.message for finding in found)
