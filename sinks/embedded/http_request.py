"""What an HTTP request asks for, as ClickHouse's own interface reads it, and how an answer is labelled."""

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
"""Parameters that are not settings of the query, whether we heed them or not."""

READONLY_BUT_SETTINGS = "2"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request. `sql` is what stands in the URL; more of it, or rows, may follow in the body."""

    sql: bytes
    database: bytes
    default_format: str
    query_id: str
    user: str
    settings: dict[str, str]
    required: frozenset[str]
    parameters: dict[str, str]


def foreign(headers: Mapping[str, str], port: int) -> str:
    """Return why a request is not answered: a web page of somewhere else made a browser send it. "" where it is.

    The server has no passwords, so that whoever reaches it may use it, and a browser on this machine reaches it. A page
    of another origin gives itself away by Origin or Sec-Fetch-Site; one whose name was rebound to the loopback by Host.
    """
    own = {f"{name}:{port}" for name in LOOPBACK}
    host = headers.get("Host", "")
    if host.lower() not in own | set(LOOPBACK):
        return f"Host {host!r}: this server answers on {', '.join(sorted(own))} only"
    origin = headers.get("Origin")
    if origin is not None and origin.lower().removeprefix("http://") not in own:
        return f"Origin {origin!r}: this server answers no pages of other origins"
    site = headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):
        return f"Sec-Fetch-Site {site!r}: this server answers no requests that pages of other origins make"
    return ""


def read_request(target: str, headers: Mapping[str, str], *, readonly: bool) -> HttpRequest:
    """Return what a request's target and headers ask for. A GET may change nothing, as in ClickHouse."""
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
    """Return the rows behind VALUES or FORMAT NAME: they begin in the same line, or with the next."""
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
    """Return the media type of a format, as ClickHouse labels it."""
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
    """Return the status that goes with one of ClickHouse's codes."""
    return _STATUS_BY_CODE.get(code, 500)
