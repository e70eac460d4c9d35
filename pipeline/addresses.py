"""Where the log and ClickHouse are, as one text each.

files:DIR                       a log in a directory
kafka://HOST:PORT[,HOST:PORT]   brokers to ask first
clickhouse://USER:PASSWORD@HOST:PORT/?secure=1&http_port=8443
embedded:DIR                    our own ClickHouse server on the loopback, its data in DIR
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

KAFKA_PORT = 9092
NATIVE_PORT, NATIVE_PORT_SECURE = 9000, 9440
HTTP_PORT, HTTP_PORT_SECURE = 8123, 8443

SOURCE_FORMS = "files:DIR or kafka://HOST:PORT[,HOST:PORT...]"
CLICKHOUSE_FORMS = "embedded:DIR or clickhouse://USER:PASSWORD@HOST:PORT/?secure=1&http_port=8443"

_TRUTH = {"1": True, "true": True, "0": False, "false": False}


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
class ServerAddress:
    """A ClickHouse server: `port` speaks the native protocol, `http_port` HTTP; both over TLS where `secure`.

    `str()` and `repr()` never show the password.
    """

    host: str
    port: int
    http_port: int
    user: str = "default"
    password: str = field(default="", repr=False)
    secure: bool = False

    def __str__(self) -> str:
        secret = ":***" if self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"clickhouse://{quote(self.user)}{secret}@{host}:{self.port}"
            f"/?secure={int(self.secure)}&http_port={self.http_port}"
        )


SourceAddress = FilesAddress | KafkaAddress
ClickHouseAddress = EmbeddedAddress | ServerAddress


def parse_source(text: str) -> SourceAddress:
    """Return the log's address. Raises ValueError with the forms that are understood."""
    scheme, _, rest = text.partition(":")
    if scheme == "files" and rest:
        return FilesAddress(Path(rest).expanduser())
    if scheme == "kafka" and rest.startswith("//"):
        return KafkaAddress(tuple(_kafka_server(server) for server in rest[2:].rstrip("/").split(",")))
    raise ValueError(f"not an address of a log: {SOURCE_FORMS}")


def _kafka_server(text: str) -> str:
    parts = _split(f"kafka://{text}", SOURCE_FORMS)
    if not parts.hostname or parts.username or parts.path:
        raise ValueError(f"{text!r} is not HOST:PORT: {SOURCE_FORMS}")
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
        raise ValueError(f"the path {parts.path!r} has no place here: the database is a setting of its own")
    query = _query(parts.query)
    secure = query.get("secure", 0) == 1
    return ServerAddress(
        host=parts.hostname,
        port=parts.port or (NATIVE_PORT_SECURE if secure else NATIVE_PORT),
        http_port=query.get("http_port", HTTP_PORT_SECURE if secure else HTTP_PORT),
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        secure=secure,
    )


def _query(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name == "secure" and value.lower() in _TRUTH:
            found[name] = _TRUTH[value.lower()]
        elif name == "http_port" and value.isdecimal() and 0 < int(value) < 65_536:
            found[name] = int(value)
        else:
            raise ValueError(f"{name}={value} is not understood: known are secure=0|1 and http_port=1..65535")
    return found


def _split(text: str, forms: str) -> SplitResult:
    parts = urlsplit(text)
    try:
        parts.port  # noqa: B018 - reading it is the check
    except ValueError as e:
        raise ValueError(f"the port is not a number from 0 to 65535: {forms}") from e
    return parts
