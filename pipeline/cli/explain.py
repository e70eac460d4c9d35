"""`adledger explain`: why an event has its verdict."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import out, out_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adledger.pipeline.explain.explain import Explained, Explainer
    from adledger.pipeline.explain.store import Store
    from adledger.pipeline.settings import Settings

DEAD_LETTERS_NAMED_MAX = 5

NOT_FOUND = (
    "check --type, --publisher and --database; `adledger status` shows whether a lane has yet to consume it; it may be "
    "older than retention_events_days, or never have been sent; ids are compared byte by byte, without quotes and spaces"
)


class EventKind(StrEnum):
    """The values of --type."""

    IMPRESSION = "impression"
    CLICK = "click"


@options.deployment("clickhouse", "database")
def explain(
    given: options.Deployment,
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The producer's event_id.")],
    *,
    hashed: Annotated[
        bool, typer.Option("--id-hash", help="EVENT_ID is its id_hash, as views and what-if show it.")
    ] = False,
    event_type: Annotated[EventKind | None, typer.Option("--type", help="Only events of this type.")] = None,
    publisher: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only events of this publisher.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show an event's class, each rule's evidence, and its origin.

    Publishers may share ids, and a retry repeats the id of its first: all matching events are shown. Evidence is recomputed
    from stored events, by the rule set that evaluated them, with today's lists and publishers, and compared with the stored
    verdict. Exit codes: 0 found, 1 not found.

    \b
    Examples:
      adledger explain 7c9e6679-7425-40de-944b-e07fc1f90ae7
      adledger explain al-8899 --publisher 2 --clickhouse embedded:data/clickhouse
      adledger explain c-17 --type click --json
      adledger explain --id-hash 8264712896182483877
    """
    from adledger.pipeline.explain.store import Store
    from adledger.pipeline.ledger.queries import TableNames
    from adledger.pipeline.stages.plain_hashes import xxh64
    from adledger.schemas.wire import EventType

    settings = given.settings
    kind = None if event_type is None else EventType[event_type.name]
    with connect.client(settings) as client:
        store = Store(client, TableNames(settings.database, settings.cluster))
        id_hash = _hash(event_id) if hashed else xxh64(event_id.encode())
        rows = store.find(id_hash, kind, publisher)
        if not rows:
            _refuse(settings, store, "" if hashed else event_id, id_hash)
        explainer = _explainer(settings, store)
        explained = [explainer.explain(row) for row in rows]
    if as_json:
        from adledger.pipeline.explain.show import as_json as event_json

        events = [event_json(each, settings.topics) for each in explained]
        out_json({"event_id": None if hashed else event_id, "id_hash": id_hash, "events": events})
    else:
        _print(explained, event_id, settings)


def _print(explained: "Sequence[Explained]", event_id: str, settings: "Settings") -> None:
    from adledger.pipeline.explain.show import as_lines

    for number, each in enumerate(explained, 1):
        if len(explained) > 1:
            out(f"{'' if number == 1 else chr(10)}event {number} of {len(explained)} with the id {event_id}")
        for line in as_lines(each, settings.topics):
            out(line)


def _hash(text: str) -> int:
    """Return the id_hash that an operator typed. Raises UsageError if it is not one."""
    from adledger.pipeline.errors import UsageError

    if not (text.isascii() and text.isdigit() and int(text) < 2**64):
        raise UsageError(
            f"{text} is not an id_hash",
            remedy="pass the number that views show, or an event_id without --id-hash",
        )
    return int(text)


def _explainer(settings: "Settings", store: "Store") -> "Explainer":
    from adledger.pipeline.explain.explain import Explainer
    from adledger.pipeline.lists.load import load_lists
    from adledger.pipeline.rules.loader import today

    lists = load_lists(today(), directory=settings.lists_dir, age_days_max=settings.list_age_days_max)
    return Explainer(store, lists, store.publishers())


def _refuse(settings: "Settings", store: "Store", event_id: str, id_hash: int) -> NoReturn:
    from adledger.pipeline.errors import AdledgerError
    from adledger.pipeline.ledger.dead_letters import reason_name

    if not event_id:
        raise AdledgerError(f"no event has the id_hash {id_hash}", remedy=NOT_FOUND)
    letters = [
        f"{settings.topics[topic] if topic < len(settings.topics) else topic} partition {lane} offset {offset} ({reason_name(code)})"
        for topic, lane, offset, code in store.dead_letters(event_id, DEAD_LETTERS_NAMED_MAX)
    ]
    if letters:
        raise AdledgerError(
            f"no event has the id {event_id}, but dead letters contain it: {'; '.join(letters)}",
            remedy="it was malformed and is never billed: see `adledger dead-letters show TOPIC PARTITION OFFSET`",
        )
    raise AdledgerError(
        f"no event has the id {event_id} (id_hash {id_hash}), and no dead letter contains it",
        remedy=NOT_FOUND,
    )
