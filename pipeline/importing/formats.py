"""The formats that `adledger import` understands, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing import access_log, ipinyou, open_bandit, talkingdata
from adledger.pipeline.importing.records import LineFormat
from adledger.pipeline.importing.wire import Wire

ID_PREFIX_CHARS_MAX = 32
"""Room for a line's number and a suffix within an event id's 64 bytes."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: what it is, and how its reader is made; `id_prefix` is None where events bring their own ids.

    `own_ids`: an event's id hangs on the event, not on its row, so that several files are one log.
    """

    description: str
    id_prefix: str | None
    reader: Callable[[str], LineFormat]
    own_ids: bool = False


FORMATS: Mapping[str, Format] = {
    "wire": Format("one JSON event a line, as producers send it", None, lambda _: Wire(), own_ids=True),
    "access-log": Format(
        "a web server's log in Apache's combined format", access_log.ID_PREFIX, access_log.AccessLog
    ),
    "open-bandit": Format(
        "the CSV of the Open Bandit Dataset", open_bandit.ID_PREFIX, open_bandit.OpenBandit
    ),
    "ipinyou": Format(
        "iPinYou's impression and click logs (24 columns)", ipinyou.ID_PREFIX, ipinyou.IPinYou, own_ids=True
    ),
    "talkingdata": Format(
        "TalkingData AdTracking's clicks (CSV)", talkingdata.ID_PREFIX, talkingdata.TalkingData
    ),
}


def line_format(name: str, id_prefix: str | None) -> LineFormat:
    """Return a reader for one file. Raises UsageError for an unknown format, or a prefix that does not fit."""
    found = FORMATS.get(name)
    if found is None:
        raise UsageError(f"there is no format {name!r}", remedy=f"Known are {', '.join(FORMATS)}.")
    if id_prefix is None:
        return found.reader(found.id_prefix or "")
    if found.id_prefix is None:
        raise UsageError(
            f"an id prefix does not go with the format {name}, whose events have ids of their own",
            remedy="Leave --id-prefix out.",
        )
    if not (0 < len(id_prefix) <= ID_PREFIX_CHARS_MAX and id_prefix.isascii() and id_prefix.isprintable()):
        raise UsageError(
            f"{id_prefix!r} can't be an id prefix",
            remedy=f"Use 1 to {ID_PREFIX_CHARS_MAX} printable ASCII characters.",
        )
    return found.reader(id_prefix)
