"""Web servers' logs with named fields or fixed columns: JSON lines, CloudFront's (W3C), and AWS load balancers'."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from adledger.pipeline.importing.access_hits import (
    ABSENT,
    Hit,
    any_time_ms,
    client_address,
    is_address,
    iso_ms,
    refuse_two_clients,
    text,
)
from adledger.pipeline.importing.line_layout import FORWARDED

CLIENTS = (
    "remote_addr", "remote_ip", "remoteip", "client_ip", "clientip", "client_addr", "clientaddr", "clienthost", "client", "remote",
    "c_ip", "ip", "request.remote_ip", "request.client_ip", "httprequest.remoteip",
)  # fmt: skip
"""Names of the client's address: nginx, Caddy, Traefik, Google's load balancer. Lower case, with _ for - and spaces."""
TIMES = (
    "time_iso8601", "time_local", "msec", "time", "timestamp", "@timestamp", "ts", "startutc", "start_time", "date", "datetime",
)  # fmt: skip
AGENTS = (
    "http_user_agent", "user_agent", "useragent", "agent", "request_user_agent", "request.headers.user_agent", "httprequest.useragent",
)  # fmt: skip
PAGES = (
    "http_referer", "http_referrer", "referer", "referrer", "request_referer", "request.headers.referer", "httprequest.referer",
)  # fmt: skip
FORWARDED_TOO = (
    "x_forwarded_for",
    "forwarded_for",
    "request_x_forwarded_for",
    "request.headers.x_forwarded_for",
    "x_real_ip",
)

_ALB = re.compile(
    r"(?:http|https|h2|grpcs|ws|wss) (\S+) \S+ (\S+) \S+ \S+ \S+ \S+ \S+ \S+ \d+ \d+ "
    r'"[^"\\]*(?:\\.[^"\\]*)*" "([^"\\]*(?:\\.[^"\\]*)*)" .*'
)
_PORT = re.compile(r"\[?(.*?)\]?:\d{1,5}")


class JsonHits:
    """Reads one JSON object per line. A line that names two different clients is refused."""

    def __init__(self, client_field: str | None = None) -> None:
        self._client = None if client_field is None else _normal(client_field)

    def read(self, line: str) -> Hit:
        """Return a line's hit. Raises ValueError."""
        event = orjson.loads(line)
        if not isinstance(event, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - a line that can't be read
        fields = dict(_flat(event))
        client = self._client_of(fields)
        _, moment = _first(fields, TIMES, "time")
        return Hit(
            client,
            any_time_ms(moment),
            text(fields.get(next((n for n in AGENTS if n in fields), ""), "")),
            text(fields.get(next((n for n in PAGES if n in fields), ""), "")),
        )

    def _client_of(self, fields: Mapping[str, str]) -> str:
        if self._client is not None:
            if self._client not in fields:
                raise ValueError(f"it has no field {self._client} (--client-field)")
            return client_address(self._client, _without_port(fields[self._client]))
        name, field = _first(fields, CLIENTS, "client's address")
        client = client_address(name, _without_port(field))
        others = {n: fields[n] for n in (*CLIENTS, *FORWARDED, *FORWARDED_TOO) if n in fields and n != name}
        refuse_two_clients(client, {n: _without_port(f) for n, f in others.items()}, name)
        return client


class CloudFront:
    """Reads CloudFront's standard logs: tab-separated, their columns named by a `#Fields:` line."""

    def __init__(self) -> None:
        self._columns: list[str] = []

    def read(self, line: str) -> Hit | None:
        """Return a line's hit; None for a line of the header. Raises ValueError."""
        if line.startswith("#"):
            if line.startswith("#Fields:"):
                self._columns = line.removeprefix("#Fields:").split()
            return None
        fields = line.split("\t")
        if not self._columns:
            raise ValueError("no #Fields: line precedes it, so its columns have no names")
        if len(fields) != len(self._columns):
            raise ValueError(f"{len(fields)} columns, not the {len(self._columns)} of the #Fields: line")
        row = dict(zip(self._columns, fields, strict=True))
        missing = [name for name in ("date", "time", "c-ip") if name not in row]
        if missing:
            raise ValueError(f"the #Fields: line lacks {', '.join(missing)}")
        client = client_address("c-ip", row["c-ip"])
        refuse_two_clients(client, {"x-forwarded-for": row.get("x-forwarded-for", "-")}, "c-ip")
        return Hit(
            client,
            iso_ms(f"{row['date']}T{row['time']}Z"),
            _decoded(row.get("cs(User-Agent)", "-")),
            _decoded(row.get("cs(Referer)", "-")),
        )


class Alb:
    """Reads an AWS application load balancer's log. It has no referrer, so hits have no page."""

    def read(self, line: str) -> Hit:
        """Return a line's hit. Raises ValueError."""
        found = _ALB.fullmatch(line)
        if found is None:
            raise ValueError("not a line of an application load balancer's log")
        return Hit(
            client_address("client:port", _without_port(found[2])), iso_ms(found[1]), text(found[3]), ""
        )


def _flat(event: Mapping[str, Any], prefix: str = "") -> "list[tuple[str, str]]":
    """Return (name in lower case, text) of an object's values; those of nested objects are named `outer.inner`."""
    found: list[tuple[str, str]] = []
    for key, value in event.items():
        name = prefix + _normal(key)
        if isinstance(value, dict):
            found += _flat(value, f"{name}.") if prefix.count(".") < 2 else []
        elif isinstance(value, list):
            found += [(name, str(value[0]))] if len(value) == 1 else [(name, ",".join(map(str, value)))]
        elif value is not None:
            found.append((name, str(value)))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-\s]", "_", name.lower())


def _first(fields: Mapping[str, str], names: tuple[str, ...], what: str) -> tuple[str, str]:
    for name in names:
        if fields.get(name, "") not in ABSENT:
            return name, fields[name]
    raise ValueError(f"no field for the {what} in it (known are {', '.join(names[:6])} ...)")


def _without_port(field: str) -> str:
    found = _PORT.fullmatch(field)
    return found[1] if found and is_address(found[1]) and not is_address(field) else field


def _decoded(field: str) -> str:
    """Decode a URL-encoded value of CloudFront's; text that is not UTF-8 stays as it is."""
    if field in ABSENT:
        return ""
    try:
        return unquote(field, errors="strict")
    except UnicodeDecodeError:
        return field
