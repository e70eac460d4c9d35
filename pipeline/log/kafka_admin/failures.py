"""Why Kafka can't be reached or refuses, with the remedy.

aiokafka reports only that a bootstrap failed. So after a failure each broker is tried once more, one by one, to find the
cause: nothing listens, another protocol, a certificate, a password.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from adledger.pipeline.errors import LogError
from adledger.pipeline.findings import Finding, format_findings

PROBE_MS_MAX = 5_000
"""Timeout of a probe of one broker."""

KAFKA_ERRORS = (errors.KafkaError, OSError, asyncio.TimeoutError, NotImplementedError)
"""aiokafka's errors where a broker is away, refuses, or is too old."""

_CONNECTION_ARGUMENTS = (
    "client_id", "security_protocol", "ssl_context", "sasl_mechanism", "sasl_plain_username",
    "sasl_plain_password", "sasl_kerberos_service_name",
)  # fmt: skip

RIGHTS_REMEDY = "adledger doctor: it names each right that is missing, and the command that grants it"

_FORBIDDEN = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
)
_PLAIN_WORDS = (
    (
        errors.SaslAuthenticationFailed,
        "Kafka at {where} refuses the login: wrong user name or password",
        "check kafka.sasl.username, kafka.sasl.password and kafka.sasl.mechanism",
    ),
    (
        errors.UnsupportedSaslMechanismError,
        "Kafka at {where} does not have this SASL mechanism: {cause}",
        "set kafka.sasl.mechanism to one that it has",
    ),
    (
        errors.IllegalSaslStateError,
        "Kafka at {where} wants no login there",
        "leave SASL_ out of kafka.security.protocol",
    ),
    (
        (errors.IncompatibleBrokerVersion, NotImplementedError),
        "Kafka at {where} is too old: {cause}",
        "upgrade the brokers to Kafka 3.1 or newer",
    ),
)

_CA_UNKNOWN = {18, 19, 20, 21}  # OpenSSL's X509_V_ERR_...: self-signed, no issuer here
_NOT_YET, _EXPIRED = 9, 10
_HOSTNAME = {62, 64}  # name, address


@asynccontextmanager
async def connected(options: Mapping[str, Any]) -> AsyncIterator[AIOKafkaClient]:
    """Yield a client that knows the cluster; `options` are those of `client_options`.

    Kafka's errors inside the block are raised as LogError with cause and remedy, too.
    """
    client = AIOKafkaClient(**options)
    try:
        await client.bootstrap()
        yield client
    except KAFKA_ERRORS as error:
        raise await explain(error, options) from error
    finally:
        await client.close()


async def explain(error: BaseException, options: Mapping[str, Any]) -> LogError:
    """Return the LogError that explains an error of aiokafka. Connects to the brokers where the error names no cause.

    `options` are those of `client_options` (or more), which the failed client was made with.
    """
    if isinstance(error, LogError):
        return error
    servers = ",".join(options["bootstrap_servers"])
    if (named := _direct_cause(error, servers)) is not None:
        return LogError(named.message, remedy=named.remedy)
    if found := await probe(options):
        if len(found) == 1:
            return LogError(found[0].message, remedy=found[0].remedy)
        return LogError(format_findings(f"no broker of {servers} can be used:", found))
    return LogError(
        f"Kafka at {servers} failed: {type(error).__name__}: {error}",
        remedy="the brokers answer now: try again; if it stays so, look at their logs",
    )


async def probe(options: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with the brokers: none where one of them, and each that it names, can be used."""
    findings: list[Finding] = []
    for host, port, _ in collect_hosts(options["bootstrap_servers"]):
        try:
            brokers = await _brokers(host, port, options)
        except KAFKA_ERRORS as error:
            findings.append(_why(error, f"{host}:{port}", options))
            continue
        return [found async for found in _advertised(brokers, options)]
    return findings


async def _brokers(host: str, port: int, options: Mapping[str, Any]) -> list[tuple[str, int]]:
    connection = await _connect(host, port, options)
    try:
        # A broker that requires a login answers version requests without one, but nothing else.
        response = await connection.send(MetadataRequest([]))
    finally:
        connection.close()
    return [(broker[1], broker[2]) for broker in response.brokers]


async def _advertised(brokers: list[tuple[str, int]], options: Mapping[str, Any]) -> AsyncIterator[Finding]:
    for host, port in brokers:
        try:
            (await _connect(host, port, options)).close()
        except KAFKA_ERRORS as error:
            cause = _why(error, f"{host}:{port}", options)
            yield Finding(
                f"the brokers tell clients to use {host}:{port}, and {cause.message}",
                f"{cause.remedy}; or correct advertised.listeners of that broker",
            )


async def _connect(host: str, port: int, options: Mapping[str, Any]) -> AIOKafkaConnection:
    arguments = {name: options[name] for name in _CONNECTION_ARGUMENTS if name in options}
    patience = min(options.get("request_timeout_ms", PROBE_MS_MAX), PROBE_MS_MAX)
    return await create_conn(host, port, request_timeout_ms=patience, **arguments)


def _direct_cause(error: BaseException, where: str) -> Finding | None:
    """Return the cause that an error names, without probing; None where it names none."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause, where)
        if isinstance(cause, _FORBIDDEN):
            what = type(cause).__name__.removesuffix("AuthorizationFailedError").lower()
            return Finding(
                f"Kafka at {where} does not allow this user what it requested of the {what}: {cause}",
                RIGHTS_REMEDY,
            )
        for kinds, message, remedy in _PLAIN_WORDS:
            if isinstance(cause, kinds):
                return Finding(message.format(where=where, cause=cause), remedy)
    return None


def _why(error: BaseException, where: str, options: Mapping[str, Any]) -> Finding:
    """Return why one broker can't be used."""
    if (direct := _direct_cause(error, where)) is not None:
        return direct
    protocol = options["security_protocol"]
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return _alert(cause, where)
        if isinstance(cause, socket.gaierror):
            return Finding(
                f"{where}: no such host ({cause.strerror})", "check the name, and DNS on this machine"
            )
        if isinstance(cause, ConnectionRefusedError):
            return Finding(
                f"{where}: nothing listens there",
                "start Kafka, or name its address: --source kafka://HOST:PORT",
            )
        if isinstance(cause, TimeoutError):
            return Finding(
                f"{where}: no answer within {PROBE_MS_MAX} ms",
                f"check address and firewall, and that the listener speaks {protocol} (kafka.security.protocol)",
            )
    return Finding(
        f"{where}: the connection was closed without an answer ({error})",
        f"set kafka.security.protocol to what the listener speaks: it was tried with {protocol}",
    )


def _certificate(error: ssl.SSLCertVerificationError, where: str) -> Finding:
    if error.verify_code == _EXPIRED:
        return Finding(f"{where}: the broker's certificate has expired", "renew it on the broker")
    if error.verify_code == _NOT_YET:
        return Finding(
            f"{where}: the broker's certificate is not valid yet",
            "check this machine's clock, and the broker's certificate",
        )
    if error.verify_code in _CA_UNKNOWN:
        return Finding(
            f"{where}: the broker's certificate is signed by a CA that is not trusted here ({error.verify_message})",
            "name the PEM file of that CA as kafka.ssl.ca.location",
        )
    if error.verify_code in _HOSTNAME:
        return Finding(
            f"{where}: the broker's certificate is for another name ({error.verify_message})",
            "name the broker as its certificate does, or set kafka.ssl.endpoint.identification.algorithm = none",
        )
    return Finding(
        f"{where}: the broker's certificate is refused: {error.verify_message}", "replace it on the broker"
    )


def _alert(error: ssl.SSLError, where: str) -> Finding:
    """Return the broker's objection to our certificate, or that it does not speak TLS at all."""
    reason = (error.reason or str(error)).upper()
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "PACKET_LENGTH" in reason:
        return Finding(
            f"{where}: does not speak TLS ({reason})",
            "set kafka.security.protocol to PLAINTEXT or SASL_PLAINTEXT, or name the TLS listener's port",
        )
    if "EXPIRED" in reason:
        return Finding(
            f"{where}: the broker says that this client's certificate has expired",
            "renew kafka.ssl.certificate.location",
        )
    if "UNKNOWN_CA" in reason or "CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
        # Java says "bad certificate" even where there was none.
        return Finding(
            f"{where}: the broker requires a client certificate that it trusts ({reason})",
            "name one that the brokers' CA signed: kafka.ssl.certificate.location and kafka.ssl.key.location",
        )
    return Finding(
        f"{where}: the TLS handshake failed ({reason})",
        "compare the TLS versions and ciphers of client and broker",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
