"""Web servers' logs as lines of fields: Apache's combined and vhost_combined formats, and any given `log_format`."""

import re

from adledger.pipeline.importing.access_hits import (
    Hit,
    addresses_in,
    any_time_ms,
    client_address,
    is_address,
    local_ms,
    refuse_two_clients,
    text,
)
from adledger.pipeline.importing.line_layout import CLIENT, FORWARDED, TIMES, LineLayout
from adledger.pipeline.importing.records import FieldError, quoted

_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_HIT = re.compile(
    rf"([^\[\"]*)\[([^\]\"]*)\] {_QUOTED} (\d{{3}}|-) (\d+|-)(?: {_QUOTED} {_QUOTED}(?: (.*))?)?", re.DOTALL
)
"""The text before the time; the time; request, status and size; referrer and user agent; the text after them."""
_VHOST = re.compile(r"[A-Za-z0-9_.*-]+(?::\d{1,5})?")


class Combined:
    """Reads `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`, with or without further fields after it.

    With `vhost`, a host's name (and port) comes first, as in vhost_combined.
    """

    def __init__(self, *, vhost: bool = False) -> None:
        self._vhost = vhost
        self._name = "vhost_combined" if vhost else "combined"

    def read(self, line: str) -> Hit:
        """Return a line's hit. Raises ValueError, also if another address might be the client."""
        found = _HIT.fullmatch(line.rstrip())
        if found is None:
            raise ValueError(_what_is_wrong(line, self._name))
        if found[7] is None:
            raise ValueError(
                "it ends before the referrer and user agent: this is the common format, not combined"
            )
        client = self._client(found[1].split())
        others = [address for address in addresses_in(found[8] or "") if address != client]
        if others:
            raise ValueError(
                f"{others[0]} follows the user agent, so that it or {client} may be the client's address; "
                "name the fields with --line-format"
            )
        return Hit(client, local_ms(found[2]), text(found[7]), text(found[6]))

    def _client(self, words: list[str]) -> str:
        addresses = [address for word in words if (address := _address_of(word))]
        if len(addresses) > 1:
            raise ValueError(
                f"two addresses before the time, {addresses[0]} and {addresses[1]}: which one is the client is ambiguous; "
                "name the fields with --line-format"
            )
        if self._vhost and words:
            vhost, *words = words
            if not _VHOST.fullmatch(vhost) or _address_of(vhost):
                raise ValueError(f"{quoted(vhost)} is not a virtual host's name")
        if len(words) < 3:
            raise ValueError(f"{len(words)} fields before the time, not the 3 of the {self._name} format")
        first, ident, *user = words
        if len(user) > 1 and (ident != "-" or user[0] == "-"):
            raise ValueError(
                f"{len(words)} fields before the time, not the 3 of the {self._name} format; name them with --line-format"
            )
        return client_address("the client", first)


class NamedFields:
    """Reads lines of the format given by `--line-format`."""

    def __init__(self, layout: LineLayout, client_field: str | None) -> None:
        self._layout = layout
        self._client = client_field or CLIENT
        self._time = next(name for name in TIMES if name in layout.fields)
        # The operator's --client-field is final; without it, a proxy's header may name a different client.
        self._others = () if client_field else tuple(name for name in FORWARDED if name in layout.fields)

    def read(self, line: str) -> Hit:
        """Return a line's hit. Raises ValueError."""
        found = self._layout.pattern.fullmatch(line)
        if found is None:
            raise ValueError("it does not match --line-format")
        fields = found.groupdict()
        client = client_address(self._client, fields[self._client])
        refuse_two_clients(client, {name: fields[name] for name in self._others}, self._client)
        return Hit(
            client,
            _moment(self._time, fields[self._time]),
            text(fields.get("http_user_agent", "-")),
            text(fields.get("http_referer", "-")),
        )


def _moment(name: str, field: str) -> int:
    if name in {"msec_whole", "usec_whole"}:
        if not (field.isascii() and field.isdigit() and len(field) <= 17):
            raise FieldError("the time", field, "a whole number")
        return int(field) // (1 if name == "msec_whole" else 1_000)
    return any_time_ms(field)


def _what_is_wrong(line: str, name: str) -> str:
    """Return why a line does not match the combined format, as precisely as possible."""
    if len(re.findall(r'(?<!\\)"', line)) % 2:
        return "a quote is not closed"
    if "[" not in line:
        return f"no [time] in it: not the {name} format"
    return f"not the {name} format"


def _address_of(word: str) -> str:
    """Return the address in a word before the time, with or without a port or a list's comma; "" if there is none."""
    for bare in (word.rstrip(","), word.rpartition(":")[0].strip("[]")):
        if is_address(bare):
            return bare
    return ""
