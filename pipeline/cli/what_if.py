"""`adledger rules what-if`: try a candidate rule set on stored events, before it affects billing. Writes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out_json

if TYPE_CHECKING:
    from adledger.pipeline.rules.rule_set import RuleSet
    from adledger.pipeline.settings import Settings
    from adledger.sinks.connection import Client

TIME_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


@options.deployment("clickhouse", "database")
def what_if(
    given: options.Deployment,
    *,
    rules: Annotated[
        str, typer.Option("--rules", metavar="SET", help="The candidate: a file, default, none or a version.")
    ],
    since: Annotated[
        datetime,
        typer.Option(
            "--from", formats=TIME_FORMATS, metavar="TIME", help="Start of the span, by watermark, UTC."
        ),
    ],
    until: Annotated[
        datetime,
        typer.Option("--to", formats=TIME_FORMATS, metavar="TIME", help="End of the span (exclusive), UTC."),
    ],
    samples: Annotated[
        int, typer.Option(metavar="N", min=0, max=1_000, help="Sample events to show for each rule.")
    ] = 3,
    as_json: options.Json = False,
) -> None:
    """Show what a rule set would have changed: events and money, by rule and publisher.

    Stored events are evaluated again in each lane's order, with windows warmed up by earlier events, and compared with their
    verdicts. Nothing is written. Notes on stderr say what a replay can't know.

    \b
    Examples:
      adledger rules what-if --rules new.toml --from 2026-11-20 --to 2026-11-21
      adledger rules what-if --rules new.toml --from 2026-11-20T08:00 --to 2026-11-20T10:00 --json
    """
    settings = given.settings

    from adledger.pipeline.cli.what_if_output import as_json as findings_json
    from adledger.pipeline.cli.what_if_output import cannot_know, print_findings
    from adledger.pipeline.ledger.queries import TableNames
    from adledger.pipeline.ledger.replay import Replay, SpanOfTime

    span = SpanOfTime(_milliseconds(since), _milliseconds(until))
    with connect.client(settings) as client, connect.client(settings) as texts_client:
        replay = Replay(client, texts_client, TableNames(settings.database, settings.cluster))
        candidate = _candidate(settings, client, rules)
        evaluated_by, unknown = replay.evaluated_by(span)
        total = sum(events for _, _, events in replay.lanes(span))
        with _progress(total) as advance:
            found = replay.run(candidate, span, evaluated_by, samples_per_rule=samples, progress=advance)
        first = replay.first_clock() if total else 0
        warm = span.start - candidate.rules.horizon_ms < first
        notes = cannot_know(
            found, candidate, list(evaluated_by.values()), unknown, replay.malformed(span), cold_start=warm
        )
        examples = [sample for each in found.samples.values() for sample in each]
        agents = replay.user_agents(_hashes([sample.ua_hash for sample in examples]))
    if as_json:
        out_json(findings_json(found, candidate, notes, agents, (span.start, span.end)))
    else:
        print_findings(found, notes, agents)


def _candidate(settings: "Settings", client: "Client", name: str) -> Any:
    """Return the rule evaluator of a set, with today's lists and publishers."""
    from adledger.pipeline.cli.rules_tables import RulesTables, needs_tables
    from adledger.pipeline.lanes.rules_in_force import snapshot
    from adledger.pipeline.lists.load import load_lists
    from adledger.pipeline.rules.compiled import RuleEvaluator
    from adledger.pipeline.rules.loader import load_rules, require_horizon, today
    from adledger.sinks.rules import publishers_sql

    tables = RulesTables(client, settings.database)
    rules: RuleSet = tables.read(name)[0] if needs_tables(name) else load_rules(name)
    require_horizon(rules, name, settings.rule_horizon_minutes_max)
    lists = load_lists(today(), directory=settings.lists_dir, age_days_max=settings.list_age_days_max)
    return RuleEvaluator(rules, lists, snapshot(client.execute(publishers_sql(settings.database))))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for (lane, further events): it moves a bar on a terminal, and does nothing elsewhere."""
    import sys

    if not sys.stderr.isatty():
        err(f"replaying {total:,} events")
        yield lambda _lane, _events: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("replay", total=total)
        yield lambda lane, events: bars.update(task, advance=events, description=f"replay, lane {lane}")


def _hashes(values: list[int]) -> Any:
    import numpy as np

    return np.unique(np.array(values, np.uint64))


def _milliseconds(time: datetime) -> int:
    return int(time.replace(tzinfo=UTC).timestamp() * 1000)
