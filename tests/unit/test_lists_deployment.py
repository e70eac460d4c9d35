"""A deployment's lists: what they do, and that an invalid file is refused whole, with file, line and remedy."""

import ipaddress
from datetime import date

import numpy as np
import pytest

from adledger.pipeline.errors import UsageError
from adledger.pipeline.kernels import lists as kernels
from adledger.pipeline.lists.deployment import FILE_BYTES_MAX, load_directory, parse
from adledger.pipeline.lists.facts import ListState
from adledger.pipeline.lists.load import load_lists

DAY = date(2026, 11, 23)
GOOD = """\
name = "office"
version = "3"
date = 2026-11-20
author = "Ann Analyst"
reason = "our own people test the site"
verdict = "allow"
addresses = [
  "3.208.0.0/16",
  "10.1.0.0/16",
  "2600:1f18::/33",
]
user_agents = ["^AcmeMonitor/", 'curl/8\\.5']
"""


def lists_of(tmp_path, **files):
    tmp_path.mkdir(exist_ok=True)
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    return load_lists(DAY, directory=tmp_path, age_days_max=365)


def ip_flags(lists, address):
    parsed = ipaddress.ip_address(address)
    number = int(parsed) if parsed.version == 6 else 0xFFFF << 32 | int(parsed)
    columns = (np.array([n], np.uint64) for n in divmod(number, 2**64))
    return int(lists.addresses.classify(*columns)[0])


def ua_flags(lists, text):
    return int(lists.user_agents.classify([text])[0])


def test_an_allow_list_wins(tmp_path):
    """An entry of an allow list has no flag of another list and is no impostor; everything else is unchanged."""
    lists = lists_of(tmp_path, office=GOOD)
    for address in ("3.208.0.1", "10.1.2.3", "2600:1f18::1"):
        assert ip_flags(lists, address) == kernels.IP_ALLOWED | kernels.IP_OWNED_BY_ALL
    assert ip_flags(lists, "3.209.0.1") == kernels.IP_DATACENTER
    assert ip_flags(lists, "10.2.0.1") == kernels.IP_RESERVED
    assert ua_flags(lists, b"AcmeMonitor/2 (bot)") == kernels.UA_ALLOWED
    assert ua_flags(lists, b"curl/8.5.0") == kernels.UA_ALLOWED
    assert ua_flags(lists, b"curl/8.6.0") == kernels.UA_NON_BROWSER
    assert lists.user_agents.explain(b"curl/8.5.0")[0].list_name == "office"


def test_a_deny_list_adds(tmp_path):
    """A denied address counts as a data centre's, a denied user agent as a known bot; allow wins over deny."""
    deny = GOOD.replace('"office"', '"farm"').replace('"allow"', '"deny"')
    deny = deny.replace("10.1.0.0/16", "86.128.10.0/24").replace("AcmeMonitor", "ClickFarm")
    lists = lists_of(tmp_path, office=GOOD, farm=deny)
    assert ip_flags(lists, "86.128.10.23") == kernels.IP_DATACENTER
    assert ip_flags(lists, "3.208.0.1") & (kernels.IP_DATACENTER | kernels.IP_RESERVED) == 0
    assert ua_flags(lists, b"ClickFarm/1.0 Mozilla/5.0") & kernels.UA_KNOWN_BOT
    assert ua_flags(lists, b"curl/8.5.0") == kernels.UA_ALLOWED
    assert lists.user_agents.explain(b"ClickFarm/1.0")[0].list_name == "farm"


def test_the_version_is_of_the_contents(tmp_path):
    """Entries, verdict and expiry change the lists' version; author, order of entries and file name do not."""
    base = lists_of(tmp_path / "a", office=GOOD)
    reordered = GOOD.replace('  "3.208.0.0/16",\n  "10.1.0.0/16",', '  "10.1.0.0/16",\n  "3.208.0.0/16",')
    assert reordered != GOOD
    same = lists_of(tmp_path / "b", other=reordered.replace("Ann Analyst", "Bo"))
    assert same.version == base.version
    for name, change in (
        ("c", GOOD.replace("10.1.0.0", "10.3.0.0")),
        ("d", GOOD.replace('"allow"', '"deny"')),
        ("e", GOOD + "expires = 2026-11-21\n"),
    ):
        assert lists_of(tmp_path / name, office=change).version != base.version
    assert load_lists(DAY, age_days_max=365).version != base.version


def test_an_expired_list_is_not_used(tmp_path):
    """A list is used up to and including its expiry day, and after it is reported as expired."""
    lists = lists_of(tmp_path, office=GOOD + "expires = 2026-11-22\n")
    assert ip_flags(lists, "3.208.0.1") == kernels.IP_DATACENTER
    assert lists.facts[-1].state(DAY) is ListState.TOO_OLD
    on_the_day = load_lists(date(2026, 11, 22), directory=tmp_path, age_days_max=365)
    assert ip_flags(on_the_day, "3.208.0.1") & kernels.IP_ALLOWED


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ('"3.208.0.0/16"', '"3.208.1.0/16"', 8, "bits set behind its prefix", "3.208.0.0/16"),
        ('"3.208.0.0/16"', '"3.208.0/16"', 8, "not an address", "203.0.113.0/24"),
        ('"3.208.0.0/16"', '"0.0.0.0/0"', 8, "too wide", "/8"),
        ('"2600:1f18::/33"', '"2600::/12"', 10, "too wide", "/16"),
        ('"3.208.0.0/16"', '"10.1.0.0/16"', 8, "listed twice", "Delete"),
        ('"3.208.0.0/16"', "3", 7, "not a string", "quotes"),
        ("AcmeMonitor/", "(?<=Acme)Monitor", 12, "not a pattern", "look-around"),
        ("AcmeMonitor/", "(", 12, "not a pattern", "RE2"),
        ("^AcmeMonitor/", "Mozilla", 12, "matches", "sets this user agent apart"),
        ("^AcmeMonitor/", "x*", 12, "matches ''", "blank"),
        ('"office"', '"Office"', 1, "not a name", "Lower-case"),
        ('"office"', '"known-bots"', 1, "not a name", "known-bots"),
        ('"allow"', '"block"', 6, "verdict", "deny"),
        ("2026-11-20", "2026-11-24", 3, "after today", "the day"),
        ("2026-11-20", '"2026-11-20"', 3, "must be a day", "date = 2026-11-20"),
        ("2026-11-20", "2026-11-20T10:00:00Z", 3, "must be a day", "date = 2026-11-20"),
        ('author = "Ann Analyst"', 'autor = "Ann"', 4, "no field 'autor'", "author"),
        ('author = "Ann Analyst"\n', "", 1, "author is missing", "Add a line"),
        ('"our own people test the site"', '""', 1, "reason is missing", "Add a line"),
        ('"allow"', '"allow', 6, "not TOML", "line"),
        ("addresses", "adresses", 7, "no field", "addresses"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_line_and_remedy(tmp_path, old, new, line, message, remedy):
    """The error names the file, the line and the remedy; nothing of the directory is loaded."""
    assert old in GOOD
    (tmp_path / "aaa.toml").write_text(GOOD.replace("office", "first"), "utf-8")
    (tmp_path / "bad.toml").write_text(GOOD.replace(old, new), "utf-8")
    with pytest.raises(UsageError) as found:
        load_directory(tmp_path, DAY)
    assert found.value.message.startswith(f"{tmp_path}/bad.toml:{line}: ")
    assert message in found.value.message
    assert remedy in found.value.remedy


def test_files_that_are_not_lists_are_refused(tmp_path):
    """Binary data, an empty list, one too large, a name used twice and a missing directory are refused."""
    header = GOOD[: GOOD.index("addresses")]
    for data, message in (
        (b'name = "a"\nversion = "\xff"\n', ":2: not UTF-8"),
        (header.encode(), "the list is empty"),
        (b"#" * (FILE_BYTES_MAX + 1), "bytes, more than"),
        (b"", "name is missing"),
    ):
        with pytest.raises(UsageError, match=message):
            parse(data, "x.toml", DAY)
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(GOOD, "utf-8")
    with pytest.raises(UsageError, match="'office' is taken by"):
        load_directory(tmp_path, DAY)
    with pytest.raises(UsageError, match="not a directory"):
        load_directory(tmp_path / "absent", DAY)


def test_the_example_in_the_docstring_is_a_list():
    """The example in the module's docstring loads unchanged."""
    from adledger.pipeline.lists import deployment

    lines = [line[4:] for line in deployment.__doc__.splitlines() if line.startswith("    ")]
    found = parse("\n".join(lines).encode(), "example.toml", DAY)
    assert found.allows
    assert found.facts.entries == 3
    assert (found.author, found.reason) == ("Ann Analyst", "our own people test the site")
