"""Compiles a web server's `log_format`, nginx's `$variables` or Apache's `%directives`, to a pattern that reads its lines.

Each field ends at the character that follows it in the format. So a line has at most one reading, in time linear in its
length; a format in which the end of a field is ambiguous is refused.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from adledger.pipeline.errors import UsageError

CLIENT = "remote_addr"
"""The field of the client's address, by nginx's name; also Apache's `%a` and `%h`."""
TIMES = ("time_local", "time_iso8601", "msec", "sec", "msec_whole", "usec_whole")
"""Fields with the time; the first that a format has is used."""
FORWARDED = (
    "http_x_forwarded_for",
    "http_x_real_ip",
    "http_true_client_ip",
    "http_cf_connecting_ip",
    "http_forwarded",
    "proxy_protocol_addr",
)
"""Fields in which a proxy names its client."""  # fmt: skip

_FREE_TEXT = re.compile(
    r"(request|request_uri|uri|args|query_string|remote_user|arg_.*|http_.*|cookie_.*|sent_http_.*)\Z"
)
"""Fields that the client controls, which may contain any character that the server does not escape."""  # fmt: skip
_NGINX = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_APACHE = re.compile(r"%(?:%|[<>]?(?:!?\d+(?:,\d+)*)?(?:\{([^}]*)\})?(\^?[a-zA-Z]+))")
_APACHE_NAMES = {
    "h": CLIENT, "a": CLIENT, "c:a": "peer_addr", "A": "server_addr", "l": "remote_ident", "u": "remote_user", "t": "time_local",
    "r": "request", "s": "status", "b": "body_bytes_sent", "B": "body_bytes_sent", "O": "bytes_sent", "I": "request_length",
    "D": "duration_us", "T": "request_time", "v": "server_name", "V": "host", "p": "server_port", "P": "pid", "m": "request_method",
    "U": "uri", "q": "query_string", "H": "server_protocol", "f": "request_filename", "k": "connection_requests",
    "X": "connection_status", "R": "handler", "L": "request_id",
    "sec:t": "sec", "msec:t": "msec_whole", "usec:t": "usec_whole", "%s:t": "sec",
}  # fmt: skip
_ENCLOSED = r'[^"\\]*(?:\\.[^"\\]*)*'
"""The text between quotes; servers escape quotes in it."""
_SEPARATORS_OF_FREE_TEXT = '"\t'


@dataclass(frozen=True, slots=True)
class LineLayout:
    """How a line is read: `pattern` matches the whole line, with a named group for each of `fields`."""

    pattern: re.Pattern[str]
    fields: frozenset[str]
    source: str


def compiled(source: str) -> LineLayout:
    """Compile a server's format. Raises UsageError with what it lacks, or where it is ambiguous."""
    parts = _parts(source)
    names = [name for is_field, name in parts if is_field]
    if not names:
        raise _refused(
            source, "it names no field", "Pass nginx's log_format or Apache's LogFormat, in single quotes."
        )
    pattern = ""
    seen: set[str] = set()
    for at, (is_field, text) in enumerate(parts):
        if not is_field:
            pattern += re.escape(text)
            continue
        before = parts[at - 1][1] if at and not parts[at - 1][0] else ""
        if at + 1 < len(parts) and parts[at + 1][0]:
            raise _refused(
                source,
                f"nothing separates ${text} and ${parts[at + 1][1]}",
                "Use a format whose fields are separated.",
            )
        after = parts[at + 1][1] if at + 1 < len(parts) else ""
        body = _field(source, text, before, after, _breaks(parts))
        if text in seen:
            pattern += f"(?:{body})"
        else:
            seen.add(text)
            pattern += f"(?P<{text}>{body})"
    return LineLayout(re.compile(pattern + r"\s*", re.DOTALL), frozenset(seen), source)  # fmt: skip


def _parts(source: str) -> list[tuple[bool, str]]:
    """Return the format as (is a field, name or literal), literals between fields."""
    is_nginx = _NGINX.search(source) is not None
    # Both servers escape a quote in a quoted format as \"; nginx's formats may be quoted with '.
    text = source.strip().replace('\\"', '"')
    parts: list[tuple[bool, str]] = []
    end = 0

    def literal(what: str) -> None:
        if what and parts and not parts[-1][0]:
            parts[-1] = (False, parts[-1][1] + what)
        elif what:
            parts.append((False, what))

    for found in (_NGINX if is_nginx else _APACHE).finditer(text):
        literal(text[end : found.start()])
        end = found.end()
        if is_nginx:
            parts.append((True, found[1] or found[2]))
        elif found[0] == "%%":
            literal("%")
        else:
            name = _apache_name(source, found[1], found[2])
            if found[2] == "t" and name == "time_local":
                literal("[")
                parts.append((True, name))
                literal("]")
            else:
                parts.append((True, name))
    literal(text[end:])
    return parts


def _apache_name(source: str, argument: str | None, directive: str) -> str:
    if directive in {"i", "o", "e", "n", "C"} and argument:
        kind = {"i": "http", "o": "sent_http", "e": "env", "n": "note", "C": "cookie"}[directive]
        return f"{kind}_" + re.sub(r"\W", "_", argument.lower()).replace("referrer", "referer")
    name = _APACHE_NAMES.get(f"{argument}:{directive}" if argument else directive)
    if name is None and directive in {"p", "P", "T", "L", "h"} and argument:
        name = _APACHE_NAMES[directive]
    if name is None:
        raise _refused(
            source,
            f"%{{{argument}}}{directive} is not supported" if argument else f"%{directive} is not supported",
            "Times are %t, %{sec}t, %{msec}t or %{usec}t; remove other directives of this kind from the log.",
        )
    return name


def _breaks(parts: list[tuple[bool, str]]) -> str:
    """Return the characters other than blanks that end a client-controlled field outside quotes."""
    ends = set()
    for (is_field, name), (_, after) in pairwise(parts):
        if is_field and _FREE_TEXT.match(name) and after[0] not in _SEPARATORS_OF_FREE_TEXT + " ":
            ends.add(after[0])
    return "".join(sorted(ends))


def _field(source: str, name: str, before: str, after: str, breaks: str) -> str:
    """Return the regular expression of a field between two literals."""
    if before.endswith('"') and after.startswith('"'):
        return _ENCLOSED
    is_free = _FREE_TEXT.match(name) is not None
    if not after:
        return f"[^{re.escape(breaks)}]*" if is_free and breaks else ".*" if is_free else r"[^\s]*"
    if name == "remote_user" and after.startswith(" ["):
        return r"[^\[]*?"
    if is_free and after.startswith(" ") and name != "remote_user":
        raise _refused(
            source,
            f"${name} may contain blanks, and a blank follows it, so its end is ambiguous",
            f'Log it in quotes ("${name}"), or separated by tabs.',
        )
    return f"[^{re.escape(after[0])}]*"


def _refused(source: str, why: str, remedy: str) -> UsageError:
    return UsageError(f"--line-format {source!r}: {why}", remedy=remedy)
