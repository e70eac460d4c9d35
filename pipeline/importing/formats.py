"""The formats that `adledger import` reads, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing import access_log, ipinyou, open_bandit, talkingdata
from adledger.pipeline.importing.records import LineFormat
from adledger.pipeline.importing.wire import Wire

ID_PREFIX_CHARS_MAX = 32
"""Room for a line's number and a suffix within an event id's 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatChoice:
    """The chosen format and its options. `id_prefix`: None is the format's default."""

    name: str
    id_prefix: str | None = None
    line_format: str | None = None
    client_field: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its description, and how to construct its reader; `id_prefix` is None if events have their own ids.

    `own_ids`: an event's id depends on the event, not on its row, so that several files can be merged.
    """

    description: str
    id_prefix: str | None
    reader: Callable[[str, FormatChoice], LineFormat]
    own_ids: bool = False


ACCESS_LOG, WIRE = "access-log", "wire"

FORMATS: Mapping[str, Format] = {
    WIRE: Format("one JSON event per line, as producers send it", None, lambda _p, _c: Wire(), own_ids=True),
    ACCESS_LOG: Format(
        "a web server's log: combined, vhost_combined, --line-format, JSON lines, CloudFront or ALB",
        access_log.ID_PREFIX,
        lambda prefix, choice: access_log.AccessLog(
            prefix, line_format=choice.line_format, client_field=choice.client_field
        ),
    ),
    "open-bandit": Format(
        "the CSV of the Open Bandit Dataset",
        open_bandit.ID_PREFIX,
        lambda prefix, _: open_bandit.OpenBandit(prefix),
    ),
    "ipinyou": Format(
        "iPinYou's impression and click logs (24 columns)",
        ipinyou.ID_PREFIX,
        lambda prefix, _: ipinyou.IPinYou(prefix),
        own_ids=True,
    ),
    "talkingdata": Format(
        "TalkingData AdTracking's clicks (CSV)",
        talkingdata.ID_PREFIX,
        lambda prefix, _: talkingdata.TalkingData(prefix),
    ),
}


def reader_of(choice: FormatChoice) -> LineFormat:
    """Return a reader for one file. Raises UsageError for an unknown format, or options that don't apply to it."""
    name, id_prefix = choice.name, choice.id_prefix
    found = FORMATS.get(name)
    if found is None:
        raise UsageError(f"there is no format {name!r}", remedy=f"Known are {', '.join(FORMATS)}.")
    if name != ACCESS_LOG and (choice.line_format or choice.client_field):
        raise UsageError(
            f"--line-format and --client-field belong to {ACCESS_LOG}, not to {name}",
            remedy=f"Remove them, or choose --format {ACCESS_LOG}.",
        )
    if id_prefix is None:
        return found.reader(found.id_prefix or "", choice)
    if found.id_prefix is None:
        raise UsageError(
            f"the format {name} takes no id prefix: its events have their own ids",
            remedy="Remove --id-prefix.",
        )
    if not (0 < len(id_prefix) <= ID_PREFIX_CHARS_MAX and id_prefix.isascii() and id_prefix.isprintable()):
        raise UsageError(
            f"{id_prefix!r} is not a valid id prefix",
            remedy=f"Use 1 to {ID_PREFIX_CHARS_MAX} printable ASCII characters.",
        )
    return found.reader(id_prefix, choice)
