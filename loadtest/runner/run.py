"""A load test from its command to its folder."""

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adledger.loadtest.lab.deployment import LabDeployment
from adledger.loadtest.lab.environment import environment
from adledger.loadtest.lab.servers import Servers
from adledger.loadtest.profiles.profile import Fault, Profile
from adledger.loadtest.profiles.thresholds import EXACT
from adledger.loadtest.results.run_folder import FRESHNESS, RUN, Run, RunFolder, RunSummary, Verification
from adledger.loadtest.runner import assessment
from adledger.loadtest.runner.check import Sent, checked, cuts_of, not_verified
from adledger.loadtest.runner.faults import Faults
from adledger.loadtest.runner.load import Interrupt, LoadRun, Outcome, Screen
from adledger.loadtest.runner.outlet import now_ms
from adledger.loadtest.runner.schedule import Plan, plan
from adledger.loadtest.runner.target import (
    LOCAL,
    RunTarget,
    deploy,
    drop_broker_data,
    names_of,
    new_id,
    servers,
    settings_of,
    tables_of,
)
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import connect

ID_TIME = "%Y%m%dt%H%M%S"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The command's options. `rate` 0 is max; None for `rate` or `seconds` is the profile's."""

    profile: Profile
    target: RunTarget
    runs: Path
    command: tuple[str, ...]
    run_id: str = ""
    rate: float | None = None
    seconds: float | None = None
    seed: int = 1
    senders: int = 1
    verify: bool = True
    faults: tuple[Fault, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def execute(request: RunRequest, screen: Screen, interrupt: Interrupt) -> tuple[RunFolder, RunSummary]:
    """Run one load test; return its folder and summary. Raises AdledgerError where it could not start."""
    run_id = request.run_id or new_id(time.strftime(ID_TIME, time.gmtime()))
    folder = RunFolder.create(request.runs, run_id)
    try:
        with servers(request.target, folder.path) as on:
            summary = one_run(request, folder, on, screen, interrupt)
    except BaseException:
        if not (folder.path / RUN).exists():  # it has not started
            shutil.rmtree(folder.path)
        raise
    drop_broker_data(on)
    return folder, summary


def one_run(
    request: RunRequest, folder: RunFolder, on: Servers, screen: Screen, interrupt: Interrupt
) -> RunSummary:
    """Execute one run on running servers; its folder exists and is empty."""
    profile, run_id = request.profile, folder.path.name
    names = names_of(run_id)
    settings = settings_of(
        on, names, {**profile.settings, **request.settings}, log_time=profile.load.log_time
    )
    planned = plan(
        profile,
        settings,
        seed=request.seed,
        now_ms=now_ms() // 1_000 * 1_000,
        rate=request.rate,
        seconds=request.seconds,
    )
    screen.say(
        f"run {run_id}: {profile.name}, {_rate_text(planned)}, {planned.schedule.seconds:g} s, in {folder.path}"
    )
    deployment = deploy(
        on, settings, names, folder.path, partitions=profile.load.partitions, workers=request.target.workers
    )
    faults = Faults((*profile.faults, *request.faults), deployment)
    run = _run(request, run_id, planned, deployment)
    folder.write_run(run)
    try:
        loaded = LoadRun(
            deployment, planned, profile, folder.path, screen, interrupt,
            senders=request.senders, urls=request.target.urls, pids=request.target.pids, faults=faults,
        ).run()  # fmt: skip
    finally:
        faults.stop()
    sent = Sent(planned.model, cuts_of(planned.model, loaded.sent))
    folder.write_seconds(loaded.samples.finished())
    loaded.samples.histograms.write(folder.path / FRESHNESS, loaded.samples.load_ms)
    folder.write_run(replace(
        run, load_started_ms=loaded.samples.load_ms, load_ended_ms=loaded.load_ended_ms, ended_ms=now_ms(),
        sent_until_ms=sent.cuts_ms,
    ))  # fmt: skip
    verification = _verification(request, deployment, sent, loaded, screen)
    summary = _summary(request, run_id, planned, sent, loaded, verification)
    folder.write_summary(summary)
    return summary


def verify_again(folder: RunFolder, clickhouse: str, screen: Screen) -> RunSummary:
    """Compare a run's tables with its ground truth (again), write and return its summary with what was found.

    Raises UsageError where the run was cut off, SinkError where its tables can't be reached.
    """
    run, summary = folder.run(), folder.summary()
    sent = Sent(TrafficModel.from_json(json.dumps(run.model)), run.sent_until_ms)
    with tables_of(run, folder.path, clickhouse) as on:
        screen.say("comparing every table with the ground truth")
        client = connect(on)
        try:
            verification = checked(sent, client, run.names.database)
        finally:
            client.disconnect()
    metrics = {**summary.metrics, EXACT.metric: verification.rows_wrong + verification.counts_wrong}
    others = tuple(t for t in summary.thresholds if t.metric != EXACT.metric)
    thresholds = (*others, EXACT.result(metrics))
    verdict, why = assessment.after_verification(summary.verdict, summary.why, thresholds)
    after = replace(
        summary, verification=verification, metrics=metrics, thresholds=thresholds, verdict=verdict, why=why
    )
    folder.write_summary(after)
    return after


def _verification(
    request: RunRequest, deployment: LabDeployment[Servers], sent: Sent, loaded: Outcome, screen: Screen
) -> Verification:
    if not request.verify:
        return not_verified("--no-verify")
    if any(text.startswith("delivery failed") for text in loaded.wrong):
        return not_verified("a delivery failed, so what the log holds is unknown")
    if loaded.drained_seconds is None and not loaded.interrupted:
        lag = loaded.samples.totals.lag
        return not_verified(f"{lag:,} events were not queryable at the end of the drain time")
    if loaded.drained_seconds is None:
        return not_verified("interrupted before everything was queryable")
    screen.say("comparing every table with the ground truth")
    client = connect(deployment.servers.clickhouse)
    try:
        return checked(sent, client, deployment.names.database)
    except AdledgerError as error:
        return not_verified(error.message)
    finally:
        client.disconnect()


def _summary(
    request: RunRequest, run_id: str, planned: Plan, sent: Sent, loaded: Outcome, verification: Verification
) -> RunSummary:
    paced = bool(planned.schedule.speed)
    due = (
        sent.records_planned(planned.schedule.end_ms)
        if paced and not (loaded.interrupted or loaded.aborted)
        else 0
    )
    facts = assessment.RunFacts(
        seconds=planned.schedule.seconds, paced=paced,
        dropped=max(0, due - loaded.samples.totals.sent) if due else 0, go_ms=loaded.go_ms,
        drained_seconds=loaded.drained_seconds, interrupted=loaded.interrupted, verify_wanted=request.verify,
        wrong=tuple(loaded.wrong),
    )  # fmt: skip
    metrics = assessment.metrics_of(loaded.samples, facts, verification)
    results = assessment.threshold_results(
        request.profile.thresholds, loaded.aborted, metrics, verified=verification.ran
    )
    verdict, why = assessment.verdict_of(results, loaded.faults, verification, facts, metrics)
    return RunSummary(
        run_id=run_id, verdict=verdict, why=why, metrics=metrics, thresholds=results, faults=loaded.faults,
        verification=verification,
    )  # fmt: skip


def _run(request: RunRequest, run_id: str, planned: Plan, deployment: LabDeployment[Servers]) -> Run:
    settings: Settings = deployment.settings
    return Run(
        id=run_id, profile_name=request.profile.name, profile=request.profile.as_json(),
        model=dataclasses.asdict(planned.model), seed=request.seed, executor=request.profile.load.executor,
        rate_per_second=planned.rate, duration_seconds=planned.schedule.seconds,
        warm_up_seconds=planned.schedule.warm_up_seconds, command=request.command, target=request.target.target,
        source=str(settings.source), clickhouse=_clickhouse(request, deployment), names=deployment.names,
        workers=request.target.workers, senders=request.senders, own_servers=request.target.target == LOCAL,
        settings=settings.model_dump(mode="json", exclude={"kafka", "clickhouse"}),
        environment=environment(deployment.servers), started_ms=now_ms(),
    )  # fmt: skip


def _clickhouse(request: RunRequest, deployment: LabDeployment[Servers]) -> str:
    """Return ClickHouse's address without a password."""
    named = request.target.clickhouse
    return named if named.startswith("embedded:") else str(deployment.servers.clickhouse)


def _rate_text(planned: Plan) -> str:
    return f"{planned.rate:,.0f} events/s" if planned.rate else "as fast as it goes"
