"""Where the log and ClickHouse are, as one text each.

files:DIR                       a log in a directory
kafka://HOST:PORT[,HOST:PORT]   brokers to ask first
clickhouse://USER:PASSWORD@HOST:PORT/?secure=1&http_port=8443
embedded:DIR                    our own ClickHouse server on the loopback, its data in DIR

Of ClickHouse the query may also say: password_file=FILE, instead of a password in the address; and with secure=1
ca=FILE, certificate=FILE and key=FILE (PEM), server_name=NAME where the certificate has another name than HOST, verify=0.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

KAFKA_PORT = 9092
NATIVE_PORT, NATIVE_PORT_SECURE = 9000, 9440
HTTP_PORT, HTTP_PORT_SECURE = 8123, 8443

SOURCE_FORMS = "files:DIR or kafka://HOST:PORT[,HOST:PORT...]"
CLICKHOUSE_FORMS = "embedded:DIR or clickhouse://USER:PASSWORD@HOST:PORT/?secure=1&http_port=8443"

_TRUTH = {"1": True, "true": True, "0": False, "false": False}
_SWITCHES, _FILES = ("secure", "verify"), ("ca", "certificate", "key", "password_file")


@dataclass(frozen=True, slots=True)
class FilesAddress:
    """A log in a directory."""

    directory: Path

    def __str__(self) -> str:
        return f"files:{self.directory}"


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Kafka: the brokers to ask first, as HOST:PORT."""

    servers: tuple[str, ...]

    def __str__(self) -> str:
        return "kafka://" + ",".join(self.servers)


@dataclass(frozen=True, slots=True)
class EmbeddedAddress:
    """Our own server on the loopback, its data in a directory."""

    directory: Path

    def __str__(self) -> str:
        return f"embedded:{self.directory}"


@dataclass(frozen=True, slots=True)
class Tls:
    """What a server that is reached over TLS must show, and what we show it (PEM files).

    Without `ca` the system's CAs are trusted, with it only its own. `server_name` is the certificate's name where
    that is not the host's. Without `verify` any server is believed: for tests only.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    verify: bool = True

    def query(self) -> str:
        """Return what an address says of it, beginning with & where it says something."""
        named = {
            "ca": self.ca,
            "certificate": self.certificate,
            "key": self.key,
            "server_name": self.server_name,
        }
        said = [f"&{name}={quote(str(value))}" for name, value in named.items() if value is not None]
        return "".join([*said, *([] if self.verify else ["&verify=0"])])


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A ClickHouse server: `port` speaks the native protocol, `http_port` HTTP; both over TLS where `secure`.

    `password_file` holds the password where the address does not. `str()` and `repr()` never show the password.
    """

    host: str
    port: int
    http_port: int
    user: str = "default"
    password: str = field(default="", repr=False)
    secure: bool = False
    tls: Tls = Tls()
    password_file: Path | None = None

    def __str__(self) -> str:
        secret = ":***" if self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"clickhouse://{quote(self.user)}{secret}@{host}:{self.port}"
            f"/?secure={int(self.secure)}&http_port={self.http_port}{self.tls.query()}"
            + (f"&password_file={quote(str(self.password_file))}" if self.password_file else "")
        )


SourceAddress = FilesAddress | KafkaAddress
ClickHouseAddress = EmbeddedAddress | ServerAddress


def parse_source(text: str) -> SourceAddress:
    """Return the log's address. Raises ValueError with the forms that are understood."""
    scheme, _, rest = text.partition(":")
    if scheme == "files" and rest:
        return FilesAddress(Path(rest).expanduser())
    if scheme == "kafka" and rest.startswith("//"):
        servers = rest[2:].rstrip("/").split(",")
        return KafkaAddress(tuple(_kafka_server(i, server) for i, server in enumerate(servers, 1)))
    raise ValueError(f"not an address of a log: {SOURCE_FORMS}")


def _kafka_server(number: int, text: str) -> str:
    parts = _split(f"kafka://{text}", SOURCE_FORMS)
    if not parts.hostname or parts.username or parts.path or parts.query or parts.fragment:
        raise ValueError(
            f"broker {number} is not HOST:PORT: {SOURCE_FORMS}; logins are properties: kafka.sasl.username, "
            "kafka.sasl.password.file"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or KAFKA_PORT}"


def parse_clickhouse(text: str) -> ClickHouseAddress:
    """Return ClickHouse's address. Raises ValueError with the forms that are understood."""
    scheme, _, rest = text.partition(":")
    if scheme == "embedded" and rest:
        return EmbeddedAddress(Path(rest).expanduser())
    if scheme != "clickhouse" or not rest.startswith("//"):
        raise ValueError(f"not an address of ClickHouse: {CLICKHOUSE_FORMS}")
    parts = _split(text, CLICKHOUSE_FORMS)
    if not parts.hostname:
        raise ValueError(f"no host: {CLICKHOUSE_FORMS}")
    if parts.path not in ("", "/"):
        raise ValueError(
            "what follows the host has no place here: the database is a setting of its own, and / ? # @ in a password "
            "are written %2F %3F %23 %40"
        )
    query = _query(parts.query)
    secure = query.pop("secure", False)
    default_http_port = HTTP_PORT_SECURE if secure else HTTP_PORT
    password, password_file = unquote(parts.password or ""), query.pop("password_file", None)
    if password and password_file:
        raise ValueError("a password and a password_file: leave one of them out")
    http_port = query.pop("http_port", default_http_port)
    tls = Tls(**query)
    if tls != Tls() and not secure:
        raise ValueError(f"{', '.join(query)} without secure=1 would not be used: set it, or leave them out")
    if tls.key and not tls.certificate:
        raise ValueError("a key without its certificate: set certificate=FILE too")
    return ServerAddress(
        host=parts.hostname,
        port=parts.port or (NATIVE_PORT_SECURE if secure else NATIVE_PORT),
        http_port=http_port,
        user=unquote(parts.username or "default"),
        password=password,
        secure=secure,
        tls=tls,
        password_file=password_file,
    )


def _query(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in _SWITCHES and value.lower() in _TRUTH:
            found[name] = _TRUTH[value.lower()]
        elif name == "http_port" and value.isdecimal() and 0 < int(value) < 65_536:
            found[name] = int(value)
        elif name in _FILES and value:
            found[name] = Path(value).expanduser()
        elif name == "server_name" and value:
            found[name] = value
        else:
            raise ValueError(
                f"{name}=*** is not understood: known are secure=0|1, http_port=1..65535, password_file=FILE, "
                "ca=FILE, certificate=FILE, key=FILE, server_name=NAME and verify=0|1"
            )
    return found


def _split(text: str, forms: str) -> SplitResult:
    parts = urlsplit(text)
    try:
        parts.port  # noqa: B018 - reading it is the check
    except ValueError as e:
        raise ValueError(f"the port is not a number from 0 to 65535: {forms}") from e
    return parts
