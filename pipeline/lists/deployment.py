"""Allow and deny lists of a deployment: TOML files in one directory, each versioned, each refused whole.

    name = "office"            # unique; lower-case letters, digits, hyphens
    version = "3"
    date = 2026-11-20
    author = "Ann Analyst"
    reason = "our own people test the site"
    verdict = "allow"          # or "deny"
    expires = 2027-11-20       # optional: not used after that day
    addresses = ["203.0.113.0/24", "2001:db8::/32"]
    user_agents = ["^AcmeMonitor/"]

`allow`: what matches has no flag of a list, whatever others say. `deny`: its addresses count as a data centre's
(IP_DATACENTER), its user agents as known bots (UA_KNOWN_BOT). Patterns are RE2's, searched anywhere, case-sensitive.
"""

import ipaddress
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from adledger.pipeline.errors import UsageError
from adledger.pipeline.kernels.lists import IP_ALLOWED, IP_DATACENTER, UA_ALLOWED, UA_KNOWN_BOT
from adledger.pipeline.lists.addresses import AddressList
from adledger.pipeline.lists.facts import PACKAGED, ListFacts, content_hash
from adledger.pipeline.lists.patterns import PatternSet, refused
from adledger.pipeline.lists.ranges import Network
from adledger.pipeline.lists.user_agents import PatternList

FILES_MAX = 64
FILE_BYTES_MAX = 4 * 1024 * 1024
PATTERNS_MAX = 10_000
PATTERN_CHARS_MAX = 1_024
V4_PREFIX_MIN, V6_PREFIX_MIN = 8, 16
"""The widest networks that a list may name: a mistyped /0 must not reject, or admit, everybody."""

ORDINARY_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0",
)
"""A pattern that matches one of these, or the empty string, would decide about half of all visitors."""

_NEEDED = {"name": str, "version": str, "date": date, "author": str, "reason": str, "verdict": str}
_OPTIONAL = {"expires": date, "addresses": list, "user_agents": list}
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")


@dataclass(frozen=True, slots=True)
class OwnList:
    """One file: its addresses and user agents."""

    facts: ListFacts
    author: str
    reason: str
    allows: bool
    addresses: AddressList
    user_agents: PatternList


def load_directory(directory: Path, now: date) -> tuple[OwnList, ...]:
    """Load all *.toml files of a directory, in order of their names. Raises UsageError for the first that is wrong."""
    if not directory.is_dir():
        raise UsageError(
            f"lists_dir = {directory} is not a directory",
            remedy="Create it, or leave lists_dir out if the deployment has no lists of its own.",
        )
    paths = sorted(directory.glob("*.toml"))
    if len(paths) > FILES_MAX:
        raise UsageError(
            f"{directory} holds {len(paths)} lists, more than {FILES_MAX}", remedy="Put entries together."
        )
    found: dict[str, Path] = {}
    lists = []
    for path in paths:
        each = load_file(path, now)
        if each.facts.name in found:
            raise UsageError(
                f"{path}: the name {each.facts.name!r} is taken by {found[each.facts.name]}",
                remedy="Give each list a name of its own.",
            )
        found[each.facts.name] = path
        lists.append(each)
    return tuple(lists)


def load_file(path: Path, now: date) -> OwnList:
    """Load one file. Raises UsageError that names file, line and remedy."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}", remedy="Name a list file.") from e
    return parse(data, str(path), now)


def parse(data: bytes, where: str, now: date) -> OwnList:
    """Parse a file's bytes. Raises UsageError that names `where`, line and remedy."""
    if len(data) > FILE_BYTES_MAX:
        raise UsageError(f"{where} has {len(data):,} bytes, more than {FILE_BYTES_MAX:,}", remedy="Split it.")
    try:
        text = data.decode()
        fields = tomllib.loads(text)
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise UsageError(f"{where}:{line}: not UTF-8", remedy="Save the file as UTF-8.") from e
    except tomllib.TOMLDecodeError as e:
        at = _TOML_LINE.search(str(e))
        line = int(at[1]) if at else text.count("\n") + 1
        raise UsageError(f"{where}:{line}: not TOML: {e}", remedy="Fix that line.") from e
    return _Checked(text, where, now, fields).result()


class _Checked:
    """The checks of one file, each of which names its line."""

    def __init__(self, text: str, where: str, now: date, fields: dict[str, Any]) -> None:
        self._lines = text.splitlines()
        self._where = where
        self._now = now
        self._fields = fields

    def result(self) -> OwnList:
        self._check_fields()
        fields = self._fields
        allows = fields["verdict"] == "allow"
        networks = [self._network(entry) for entry in self._entries("addresses")]
        patterns = [self._pattern(entry) for entry in self._entries("user_agents")]
        if not networks and not patterns:
            raise self._wrong(
                "verdict", "the list is empty", "Add addresses or user_agents, or delete the file."
            )
        expires = fields.get("expires")
        facts = ListFacts(
            fields["name"],
            self._where,
            "the deployment's",
            fields["version"],
            fields["date"],
            len(networks) + len(patterns),
            content_hash((fields["verdict"], *sorted(map(str, networks)), *sorted(patterns))),
            None if expires is None else (expires - fields["date"]).days,
        )
        ip_flag, ua_flag = (IP_ALLOWED, UA_ALLOWED) if allows else (IP_DATACENTER, UA_KNOWN_BOT)
        return OwnList(
            facts,
            fields["author"],
            fields["reason"],
            allows,
            AddressList.of(facts.name, ip_flag, [(net, facts.name) for net in networks]),
            PatternList(facts.name, PatternSet(patterns), tuple(patterns), (ua_flag,) * len(patterns)),
        )

    def _check_fields(self) -> None:
        known = _NEEDED | _OPTIONAL
        for name, value in self._fields.items():
            if name not in known:
                raise self._wrong(name, f"there is no field {name!r}", f"Known are {', '.join(known)}.")
            if not isinstance(value, known[name]) or isinstance(value, datetime):
                raise self._wrong(
                    name, f"{name} must be {_WORDS[known[name]]}", f"Write {name} = {_FORMS[known[name]]}."
                )
        for name, kind in _NEEDED.items():
            if self._fields.get(name, "") == "":
                raise self._wrong("", f"{name} is missing", f"Add a line {name} = {_FORMS[kind]}.")
        self._check_header()

    def _check_header(self) -> None:
        name, made, expires = self._fields["name"], self._fields["date"], self._fields.get("expires")
        if not re.fullmatch("[a-z0-9][a-z0-9-]{0,63}", name) or name in PACKAGED:
            raise self._wrong(
                "name",
                f"{name!r} is not a name for a list",
                f"Lower-case letters, digits and hyphens, at most 64; not {', '.join(PACKAGED)}.",
            )
        if self._fields["verdict"] not in ("allow", "deny"):
            raise self._wrong("verdict", f"verdict = {self._fields['verdict']!r}", 'Write "allow" or "deny".')
        if made > self._now:
            raise self._wrong(
                "date", f"date {made} is after today, {self._now}", "Write the day it was made."
            )
        if expires is not None and expires < made:
            raise self._wrong("expires", f"expires {expires}, before its date {made}", "Write a later day.")

    def _entries(self, name: str) -> Sequence[str]:
        entries: list[Any] = self._fields.get(name, [])
        for entry in entries:
            if not isinstance(entry, str):
                raise self._wrong(name, f"{entry!r} in {name} is not a string", "Put it in double quotes.")
        for entry in {e for e in entries if entries.count(e) > 1} if len(set(entries)) < len(entries) else ():
            raise self._wrong(entry, f"{entry!r} is listed twice", "Delete one of them.")
        return entries

    def _network(self, entry: str) -> Network:
        try:
            net = ipaddress.ip_network(entry, strict=False)
        except ValueError as e:
            raise self._wrong(
                entry,
                f"{entry!r} is not an address or a network",
                "Write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32.",
            ) from e
        if "/" in entry and net != _strict(entry):
            raise self._wrong(entry, f"{entry!r} has bits set behind its prefix", f"Write {net}.")
        if net.prefixlen < (V4_PREFIX_MIN if net.version == 4 else V6_PREFIX_MIN):
            raise self._wrong(
                entry,
                f"{entry!r} is too wide",
                f"At most a /{V4_PREFIX_MIN} of IPv4 and a /{V6_PREFIX_MIN} of IPv6 in one entry.",
            )
        return net

    def _pattern(self, entry: str) -> str:
        if len(entry) > PATTERN_CHARS_MAX or len(self._fields["user_agents"]) > PATTERNS_MAX:
            raise self._wrong(
                entry,
                "too long",
                f"At most {PATTERNS_MAX:,} patterns of {PATTERN_CHARS_MAX:,} characters in one list.",
            )
        if why := refused(entry):
            raise self._wrong(
                entry,
                f"{entry!r} is not a pattern: {why}",
                "RE2's syntax: no look-around, no back-references.",
            )
        one = PatternSet((entry,))
        for text in ("", *ORDINARY_BROWSERS):
            if one.matches(text.encode()):
                raise self._wrong(
                    entry,
                    f"{entry!r} matches {text!r}, which identifies nothing",
                    "Make it say what sets this user agent apart (blank ones have a rule of their own).",
                )
        return entry

    def _wrong(self, what: str, message: str, remedy: str) -> UsageError:
        return UsageError(f"{self._where}:{self._line(what)}: {message}", remedy=remedy)

    def _line(self, what: str) -> int:
        """Return the number of the first line that sets a field or holds an entry, 1 where none does."""
        for number, line in enumerate(self._lines, 1):
            if what and (re.match(rf"\s*\"?{re.escape(what)}\"?\s*=", line) or _holds(line, what)):
                return number
        return 1


def _holds(line: str, entry: str) -> bool:
    escaped = entry.replace("\\", "\\\\").replace('"', '\\"')
    return any(quoted in line for quoted in (f'"{escaped}"', f"'{entry}'"))


def _strict(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        return None


_WORDS = {str: "a text", date: "a day", list: "a list of texts"}
_FORMS = {str: '"..."', date: "2026-11-20", list: '["...", "..."]'}
