"""`adledger dead-letters list|show`: records that could not be decoded: why, whose they are, and their bytes."""

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out, out_bytes, out_json, out_table
from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.schemas.roles import FRAUD

if TYPE_CHECKING:
    from adledger.pipeline.ledger.dead_letters import DeadLetter, ExplainedLetter
    from adledger.pipeline.settings import Settings

ACCEPTED = "nothing: this release accepts it"
BYTES_ROLE = f"use a user with the role {FRAUD} (`adledger roles sql` prints it)"

dead_letters = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@dead_letters.callback()
def root() -> None:
    """Show malformed records: their reasons, origins and bytes.

    \b
    Examples:
      adledger dead-letters list --reason not_json
      adledger dead-letters show ad.impressions 3 1042
    """


@dead_letters.command("list")
@options.deployment("clickhouse", "database")
def list_(
    given: options.Deployment,
    *,
    reason: Annotated[str | None, typer.Option(metavar="NAME", help="Only records with this reason.")] = None,
    partition: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only this partition.")] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="The most records to list.")
    ] = 50,
    as_json: options.Json = False,
) -> None:
    """List malformed records, the latest first.

    The first table shows the field at fault, what was found in it, and the publisher; `show` has the bytes, and without
    the right to read those these columns are empty. A second table counts the latest 5,000 by reason, field and publisher,
    and says what is allowed. All are counted by reason on stderr, or with --json in `counts`.

    \b
    Examples:
      adledger dead-letters list --clickhouse embedded:data/clickhouse
      adledger dead-letters list --reason wrong_type --partition 3 --limit 10 --json
    """
    from adledger.pipeline.ledger import dead_letters as store
    from adledger.pipeline.ledger.queries import TableNames

    settings = given.settings
    code = None if reason is None else store.reason_code(reason)
    tables = TableNames(settings.database, settings.cluster)
    with connect.client(settings) as client:
        counts = store.counts(client, tables, partition)
        readable = store.may_read_bytes(client, tables)
        latest = partial(store.latest, client, tables, reason_code=code, lane=partition, with_bytes=readable)
        letters = latest(rows_max=limit)
        examined = latest(rows_max=store.EXAMINED_MAX, to_count=True)
    faults = store.count_faults(examined, _kinds(settings))
    explained = [(letter, store.explain(letter, _kinds(settings))) for letter in letters]
    if as_json:
        out_json(
            {
                "counts": counts,
                "faults": [{**fault._asdict(), "records": records} for fault, records in faults],
                "examined": len(examined),
                "dead_letters": [_as_json(settings, *each) for each in explained],
            }
        )
        return
    _print_list(settings, explained)
    out("")
    out_table(
        ("records", "reason", "field", "publisher", "allowed"),
        [
            (records, f.reason, f.field or "-", _or_dash(f.publisher_id), f.allowed or "-")
            for f, records in faults
        ],
    )
    err("; ".join(f"{name}: {n:,}" for name, n in counts.items()) or "no dead letters")
    if not readable:
        err(f"field, found and publisher come from the records' bytes; to see them, {BYTES_ROLE}")


def _print_list(settings: "Settings", explained: "list[tuple[DeadLetter, ExplainedLetter]]") -> None:
    out_table(
        ("topic", "partition", "offset", "records", "log time", "reason", "field", "found", "publisher"),
        [
            (
                _topic(settings, d), str(d.lane), str(d.offset), d.records, d.log_time_text, d.reason,
                each.why.field or "-", each.why.found or (ACCEPTED if each.accepted else "-"), _or_dash(each.publisher_id),
            )
            for d, each in explained
        ],
    )  # fmt: skip


@dead_letters.command("show")
@options.deployment("clickhouse", "database")
def show(
    given: options.Deployment,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Name of the topic.")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="The record's partition.")],
    offset: Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="The record's offset.")],
    *,
    as_hex: Annotated[bool, typer.Option("--hex", help="Print the value as a hex dump.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the value's bytes and nothing else.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show one malformed record.

    Prints its reason, the field at fault, what was found and what is allowed, then batch, key and value; unprintable
    characters are escaped. A user who may not read the bytes sees offset, reason and batch.

    \b
    Examples:
      adledger dead-letters show ad.impressions 3 1042
      adledger dead-letters show ad.impressions 3 1042 --hex
      adledger dead-letters show ad.impressions 3 1042 --raw > record.json
    """
    from adledger.pipeline.ledger import dead_letters as store
    from adledger.pipeline.ledger.queries import TableNames

    if as_hex + raw + as_json > 1:
        raise UsageError("--hex, --raw and --json contradict each other", remedy="use only one of them")
    settings = given.settings
    if topic not in settings.topics:
        known = ", ".join(settings.topics)
        raise UsageError(
            f"{topic} is not an event topic: the topics are {known}",
            remedy="name one of them, or set topics=...",
        )
    tables = TableNames(settings.database, settings.cluster)
    with connect.client(settings) as client:
        readable = store.may_read_bytes(client, tables)
        found = store.find(
            client, tables, settings.topics.index(topic), partition, offset, with_bytes=readable
        )
    if found is None:
        raise AdledgerError(
            f"no dead letter at {topic}, partition {partition}, offset {offset}",
            remedy="`adledger dead-letters list` shows those that exist",
        )
    if found.value is None and (raw or as_hex):
        raise AdledgerError("this user may not read the bytes of dead letters", remedy=BYTES_ROLE)
    if raw:
        out_bytes(found.value or b"")
    elif as_json:
        out_json(_as_json(settings, found, store.explain(found, _kinds(settings))))
    else:
        _print(settings, found, store.explain(found, _kinds(settings)), as_hex=as_hex)


def _print(settings: "Settings", letter: "DeadLetter", explained: "ExplainedLetter", *, as_hex: bool) -> None:
    why = explained.why
    out(f"{_topic(settings, letter)}, partition {letter.lane}, offset {letter.offset}")
    out(f"reason    {letter.reason}: {letter.meaning}")
    for name, text in (("field", why.field), ("found", why.found), ("allowed", why.allowed)):
        if text:
            out(f"{name:8}  {text}")
    if explained.accepted:
        out(f"found     {ACCEPTED}")
    if explained.publisher_id is not None:
        out(f"publisher {explained.publisher_id}")
    out(f"log time  {letter.log_time_text}")
    out(f"batch     {letter.batch_no}")
    if letter.records > 1:
        out(f"records   {letter.records:,}, up to offset {letter.offset + letter.records - 1}")
    if letter.key is None or letter.value is None:
        out(f"bytes     not shown: this user may not read them; to see them, {BYTES_ROLE}")
        return
    out(f"key       {_escaped(letter.key)}")
    out(f"value     {len(letter.value):,} bytes")
    out(_hex_dump(letter.value) if as_hex else _escaped(letter.value))
    if not as_hex and sys.stdout.isatty():
        err("(escaped; --hex and --raw show the bytes)")


def _as_json(settings: "Settings", letter: "DeadLetter", explained: "ExplainedLetter") -> dict[str, Any]:
    return {
        "topic": _topic(settings, letter),
        "partition": letter.lane,
        "offset": letter.offset,
        "log_time": letter.log_time_text,
        "reason": letter.reason,
        "batch_no": letter.batch_no,
        "records": letter.records,
        **_of_bytes(letter, explained),
    }


def _of_bytes(letter: "DeadLetter", explained: "ExplainedLetter") -> dict[str, Any]:
    """Return the bytes and what they say; each is null where the user may not read them."""
    found: dict[str, Any] = {
        "field": explained.why.field,
        "found": explained.why.found,
        "allowed": explained.why.allowed,
        "publisher_id": explained.publisher_id,
        "accepted_by_this_release": explained.accepted,
    }
    if letter.key is None or letter.value is None:
        return dict.fromkeys((*found, "key_hex", "value_hex", "value_text"))
    return found | {
        "key_hex": letter.key.hex(),
        "value_hex": letter.value.hex(),
        "value_text": letter.value.decode("utf-8", "backslashreplace"),
    }


def _topic(settings: "Settings", letter: "DeadLetter") -> str:
    return settings.topics[letter.topic] if letter.topic < len(settings.topics) else f"topic {letter.topic}"


def _kinds(settings: "Settings") -> tuple[int, ...]:
    from adledger.pipeline.log.source import topic_kinds

    return topic_kinds(len(settings.topics))


def _or_dash(publisher_id: int | None) -> str:
    return "-" if publisher_id is None else str(publisher_id)


def _escaped(value: bytes) -> str:
    from adledger.pipeline.stages.snippets import escaped

    return escaped(value.decode("utf-8", "backslashreplace"))


def _hex_dump(value: bytes) -> str:
    lines = []
    for at in range(0, len(value), 16):
        row = value[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{at:06x}  {row.hex(' '):47}  {text}")
    return "\n".join(lines)
