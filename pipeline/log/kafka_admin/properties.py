"""Kafka's own client properties become what aiokafka and Faust take; wrong ones are refused, all at once.

The names are those of Kafka and librdkafka (`adledger.pipeline.settings.KAFKA_PROPERTIES`). A secret may come from the
environment (ADLEDGER_KAFKA_SASL_PASSWORD, ADLEDGER_KAFKA_SSL_KEY_PASSWORD) or from a separate file, named by
`sasl.password.file` or `ssl.key.password.file`: its text without the last line break.

SASL: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. GSSAPI is passed on where the `gssapi` package is installed;
OAUTHBEARER needs a token provider, which is code, and is refused.
"""

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from adledger.pipeline.errors import UsageError
from adledger.pipeline.findings import Finding, format_findings
from adledger.pipeline.log.kafka_admin.tls import tls_context

if TYPE_CHECKING:
    from faust.types.auth import CredentialsT

CLIENT_ID = "adledger"
"""This client's name in brokers' logs and quotas, unless client.id is set."""

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
GSSAPI = "GSSAPI"

_SECRETS = ("sasl.password", "ssl.key.password")
_ALWAYS = ("request.timeout.ms", "retry.backoff.ms", "metadata.max.age.ms", "connections.max.idle.ms")
_GROUP = ("session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms")
_NEVER_IDLE = "-1"
HEARTBEAT_DEFAULT_MS, SESSION_DEFAULT_MS = 3_000, 10_000  # aiokafka's
_INT32_MAX = 2**31 - 1


class Secret(str):
    """A string whose repr hides it, so that no log or traceback of a structure shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(slots=True)
class _Checked:
    """The options, and what is wrong with the properties."""

    options: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)


def client_options(servers: Sequence[str], properties: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments that aiokafka's consumer, producer, admin client and client have in common.

    `servers` are HOST:PORT. Raises UsageError that lists everything wrong, each with its key and remedy. Secrets
    in the result don't show in its repr.
    """
    return _raise_findings(_client(servers, properties))


def consumer_options(servers: Sequence[str], properties: Mapping[str, str]) -> dict[str, Any]:
    """Return `client_options` and the timeouts of a group's member (aiokafka's consumer).

    Raises UsageError, as `client_options`.
    """
    checked = _client(servers, properties)
    checked.options |= {
        _argument(name): int(properties[name]) for name in _GROUP if _is_number(properties.get(name))
    }
    if "group.instance.id" in properties:
        checked.options["group_instance_id"] = properties["group.instance.id"]
    return _raise_findings(checked)


def faust_credentials(properties: Mapping[str, str]) -> "CredentialsT | None":
    """Return what Faust's `broker_credentials` takes; None for PLAINTEXT. Raises UsageError, as `client_options`."""
    from faust.auth import GSSAPICredentials, SASLCredentials, SSLCredentials  # noqa: PLC0415 - slow

    options = _raise_findings(_client((), properties))
    protocol, context = options["security_protocol"], options.get("ssl_context")
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return SSLCredentials(context)
    if options["sasl_mechanism"] == GSSAPI:
        return GSSAPICredentials(
            kerberos_service_name=options["sasl_kerberos_service_name"], ssl_context=context, mechanism=GSSAPI
        )
    return SASLCredentials(
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        ssl_context=context,
        mechanism=options["sasl_mechanism"],
    )


def _client(servers: Sequence[str], properties: Mapping[str, str]) -> _Checked:
    secrets, findings = _secrets(properties)
    values = {**properties, **secrets}
    protocol = values.get("security.protocol", "PLAINTEXT").upper()
    checked = _Checked(
        {
            "bootstrap_servers": list(servers),
            "client_id": values.get("client.id", CLIENT_ID),
            "security_protocol": protocol,
        },
        findings,
    )
    checked.findings += _contradictions(protocol, values)
    if protocol.startswith("SASL_"):
        _take_sasl(checked, values)
    if protocol in {"SSL", "SASL_SSL"}:
        context, found = tls_context(values)
        checked.options["ssl_context"] = context
        checked.findings += found
    checked.findings += _wrong_numbers(values)
    checked.options |= {
        _argument(name): int(values[name]) for name in _ALWAYS if _is_number(values.get(name))
    }
    if values.get("connections.max.idle.ms") == _NEVER_IDLE:
        checked.options["connections_max_idle_ms"] = None
    return checked


def _secrets(properties: Mapping[str, str]) -> tuple[dict[str, str], list[Finding]]:
    """Return the secrets, read from their files where files are named."""
    secrets: dict[str, str] = {}
    findings = []
    for name in _SECRETS:
        from_file = properties.get(f"{name}.file")
        if name in properties:
            secrets[name] = Secret(properties[name])
        if from_file is None:
            continue
        if name in properties:
            findings.append(
                Finding(f"kafka.{name} and kafka.{name}.file are both set", "leave one of them out")
            )
            continue
        path = Path(from_file).expanduser()
        try:
            secrets[name] = Secret(path.read_text("utf-8").removesuffix("\n").removesuffix("\r"))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            findings.append(
                Finding(
                    f"kafka.{name}.file = {path}: can't be read ({why})",
                    "name a file that this user may read, with the secret alone in it",
                )
            )
            secrets[name] = Secret("")  # it was set, so its absence is not a second finding
    return secrets, findings


def _contradictions(protocol: str, values: Mapping[str, str]) -> Iterator[Finding]:
    if protocol not in PROTOCOLS:
        yield Finding(f"kafka.security.protocol = {protocol}: not known", f"write {_either(PROTOCOLS)}")
        return
    for prefix, wanted, missing in (
        ("sasl.", "SASL_SSL", not protocol.startswith("SASL_")),
        ("ssl.", protocol.replace("PLAINTEXT", "SSL"), protocol not in {"SSL", "SASL_SSL"}),
    ):
        given = sorted(name for name in values if name.startswith(prefix))
        if missing and given:
            yield Finding(
                f"{', '.join(f'kafka.{name}' for name in given)} set, and security.protocol is {protocol}, "
                "which does not use it",
                f"set security.protocol = {wanted}, or leave them out",
            )


def _take_sasl(checked: _Checked, values: Mapping[str, str]) -> None:
    mechanism = values.get("sasl.mechanism", "").upper()
    known = _either((*PASSWORD_MECHANISMS, GSSAPI))
    checked.options["sasl_mechanism"] = mechanism
    if mechanism in PASSWORD_MECHANISMS:
        for name, argument in (
            ("sasl.username", "sasl_plain_username"),
            ("sasl.password", "sasl_plain_password"),
        ):
            if name in values:
                checked.options[argument] = values[name]
            else:
                environment = f"ADLEDGER_KAFKA_{name.replace('.', '_').upper()}"
                checked.findings.append(
                    Finding(f"kafka.{name} is not set, and {mechanism} needs it", f"set it, or {environment}")
                )
    elif mechanism == GSSAPI:
        checked.options["sasl_kerberos_service_name"] = values.get("sasl.kerberos.service.name", "kafka")
        if importlib.util.find_spec("gssapi") is None:
            checked.findings.append(
                Finding("kafka.sasl.mechanism = GSSAPI: the gssapi package is missing", "pip install gssapi")
            )
    elif mechanism == "OAUTHBEARER":
        checked.findings.append(
            Finding(
                "kafka.sasl.mechanism = OAUTHBEARER: tokens of a provider are not supported", f"write {known}"
            )
        )
    elif mechanism:
        checked.findings.append(Finding(f"kafka.sasl.mechanism = {mechanism}: not known", f"write {known}"))
    else:
        protocol = checked.options["security_protocol"]
        checked.findings.append(
            Finding(f"kafka.sasl.mechanism is not set, and {protocol} needs it", f"write {known}")
        )


def _wrong_numbers(values: Mapping[str, str]) -> Iterator[Finding]:
    for name in (*_ALWAYS, *_GROUP):
        text = values.get(name)
        if text is None or _is_number(text) or (name == "connections.max.idle.ms" and text == _NEVER_IDLE):
            continue
        yield Finding(
            f"kafka.{name} = {text}: not a number of milliseconds", f"write an integer from 1 to {_INT32_MAX}"
        )
    session, heartbeat = (values.get(name) for name in ("session.timeout.ms", "heartbeat.interval.ms"))
    session_ms = int(session) if _is_number(session) else SESSION_DEFAULT_MS
    heartbeat_ms = int(heartbeat) if _is_number(heartbeat) else HEARTBEAT_DEFAULT_MS
    if (session or heartbeat) and heartbeat_ms >= session_ms:
        yield Finding(
            f"kafka.heartbeat.interval.ms = {heartbeat_ms} is not below session.timeout.ms = {session_ms}: "
            "the broker would take a live worker for dead",
            f"set heartbeat.interval.ms to a third of it: {max(session_ms // 3, 1)}",
        )


def _is_number(text: str | None) -> TypeGuard[str]:
    return text is not None and text.isascii() and text.isdigit() and 1 <= int(text) <= _INT32_MAX


def _argument(name: str) -> str:
    return name.replace(".", "_")


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _raise_findings(checked: _Checked) -> dict[str, Any]:
    if checked.findings:
        raise UsageError(format_findings("the Kafka properties are not usable:", checked.findings))
    return checked.options


def _hides_no_password(record: logging.LogRecord) -> bool:
    args = record.args if isinstance(record.args, tuple) else ()
    return not any(type(argument).__name__.startswith("SaslAuthenticateRequest") for argument in args)


# At level DEBUG aiokafka logs every request it sends, including the one with a PLAIN password.
logging.getLogger("aiokafka.conn").addFilter(_hides_no_password)
