"""HTTP requests, parsed as ClickHouse's own interface does, and the headers of answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

DEFAULT_FORMAT = "TabSeparated"
PARAMETER_PREFIX = "param_"

NOT_SETTINGS = frozenset(
    {
        "query", "database", "default_format", "query_id", "user", "password", "quota_key", "role",
        "session_id", "session_timeout", "session_check", "close_session",
        "compress", "decompress", "buffer_size", "wait_end_of_query", "stacktrace", "client_protocol_version",
        "send_progress_in_http_headers", "enable_http_compression", "add_http_cors_header",
        "http_headers_progress_interval_ms", "http_write_exception_in_output_format",
    }
)  # fmt: skip
"""Parameters that are not settings of the query, including those that are ignored."""

READONLY_BUT_SETTINGS = "2"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request. `sql` is the part in the URL; more of it, or rows, may follow in the body."""

    sql: bytes
    database: bytes
    default_format: str
    query_id: str
    user: str
    settings: dict[str, str]
    required: frozenset[str]
    parameters: dict[str, str]


def foreign(headers: Mapping[str, str]) -> str:
    """Return why a request is refused, because a web page of another origin made a browser send it; "" if it is not.

    The server has no passwords, and a browser on this machine reaches it. A page of another origin is known by Origin or
    Sec-Fetch-Site; a page whose host name was rebound to the loopback is known by Host. Ports may differ: a proxy in front
    has its own.
    """
    host = headers.get("Host", "").lower()
    name = host[: host.rindex(":")] if re.search(r":\d+$", host) else host
    if name not in LOOPBACK:
        return f"Host {host!r}: this server answers to {', '.join(LOOPBACK)} only"
    origin = headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host}":
        return f"Origin {origin!r}: this server answers no pages of other origins"
    site = headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):
        return f"Sec-Fetch-Site {site!r}: this server answers no requests of pages of other origins"
    return ""


def read_request(target: str, headers: Mapping[str, str], *, readonly: bool) -> HttpRequest:
    """Parse a request's target and headers. A GET is read-only, as in ClickHouse."""
    given = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True, errors="surrogateescape"))
    settings = {
        name: value
        for name, value in given.items()
        if name not in NOT_SETTINGS and not name.startswith(PARAMETER_PREFIX)
    }
    required = frozenset(settings)
    if readonly and settings.get("readonly", "0") == "0":
        settings["readonly"] = READONLY_BUT_SETTINGS
    return HttpRequest(
        sql=_encoded(given.get("query", "")),
        database=_encoded(given.get("database") or headers.get("X-ClickHouse-Database") or ""),
        default_format=given.get("default_format") or headers.get("X-ClickHouse-Format") or DEFAULT_FORMAT,
        query_id=given.get("query_id", ""),
        user=given.get("user") or headers.get("X-ClickHouse-User") or "default",
        settings=settings,
        required=required,
        parameters={
            name.removeprefix(PARAMETER_PREFIX): value
            for name, value in given.items()
            if name.startswith(PARAMETER_PREFIX)
        },
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def skip_to_rows(behind_format: bytes) -> bytes:
    """Return the rows after VALUES or FORMAT NAME: they begin on the same line, or on the next."""
    rows = behind_format.lstrip(b" \t")
    return rows.removeprefix(b"\r").removeprefix(b"\n")


_CONTENT_TYPES = {
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "XML": "application/xml; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONLines": "application/x-ndjson; charset=UTF-8",
    "NDJSON": "application/x-ndjson; charset=UTF-8",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ORC": "application/octet-stream",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
}


def content_type(format_name: str) -> str:
    """Return the media type that ClickHouse sends for a format."""
    if format_name in _CONTENT_TYPES:
        return _CONTENT_TYPES[format_name]
    if format_name.startswith("JSON"):
        return "application/json; charset=UTF-8"
    if format_name.startswith(("TabSeparated", "TSV")):
        return "text/tab-separated-values; charset=UTF-8"
    return "text/plain; charset=UTF-8"


_STATUS = {
    400: (6, 26, 27, 34, 36, 38, 41, 42, 43, 53, 62, 72, 117, 130, 131, 386, 441, 456, 457),
    403: (164, 291, 497, 516),
    404: (16, 46, 47, 50, 60, 63, 73, 79, 81, 113, 115),
    408: (159,),
    501: (48,),
    503: (202, 209, 439),
}
_STATUS_BY_CODE = {code: status for status, codes in _STATUS.items() for code in codes}


def http_status(code: int) -> int:
    """Return the HTTP status for one of ClickHouse's error codes."""
    return _STATUS_BY_CODE.get(code, 500)
