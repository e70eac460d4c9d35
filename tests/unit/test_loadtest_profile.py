"""Profiles hold load and thresholds; an invalid one is refused with file, key and remedy."""

import pytest

from adledger.loadtest.profiles import files as profile_files
from adledger.loadtest.profiles.files import parse
from adledger.loadtest.profiles.profile import REPLAY, fault_of, seconds_of
from adledger.loadtest.runner.schedule import plan
from adledger.loadtest.traffic.scenarios import SCENARIOS
from adledger.pipeline.errors import UsageError
from adledger.pipeline.settings import Settings

WANTED = {
    "steady-day", "double-eleven", "retry-storm", "click-farm", "poison", "hot-publisher", "late-flood", "replayed-day",
}  # fmt: skip


def test_the_documented_profiles_ship():
    """Every documented profile ships with the product."""
    assert set(profile_files.names()) >= WANTED


def test_every_scenario_is_played():
    """Each attack and each look-alike is in one of the profiles."""
    profiles = map(profile_files.load, profile_files.names())
    played = {kind.kind for profile in profiles for kind in profile.traffic.get("scenarios", ())}
    assert played == set(SCENARIOS)


@pytest.mark.parametrize("name", profile_files.names())
def test_a_profile_can_be_run(name):
    """A profile has load, thresholds and a description, and its traffic plan has as many events as its rate says."""
    profile = profile_files.load(name)
    assert profile.thresholds
    assert profile.description
    planned = plan(profile, Settings(), seed=1, now_ms=1_800_000_000_000, rate=None, seconds=None)
    if not profile.load.stages:
        assert planned.model.events == round(profile.load.rate * planned.schedule.total_seconds)
    assert (planned.schedule.speed > 1) == (profile.load.executor == REPLAY)
    assert planned.model.edge_margin_minutes > 0


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("[load]\nrat = 5", "load.rat", "rate"),
        ('[load]\nrate = "5"', "load.rate", "a number"),
        ('[load]\nexecutor = "steady"', "load.executor", "constant-arrival-rate"),
        ('[load]\nduration = "5"', "load.duration", "unit"),
        ('[load]\nexecutor = "ramping-arrival-rate"', "load.stages", "needs one"),
        ("[traffic]\nlate_shares = 0.1", "traffic.late_shares", "late_share"),
        ("[traffic]\nlate_share = 7", "traffic", "from 0 to 1"),
        ('[traffic]\nusers = "many"', "traffic.users", "int"),
        ("[traffic]\nseed = 7", "traffic.seed", "known are"),
        ('[[traffic.scenarios]]\nkind = "heist"', "traffic.scenarios", "replay"),
        ('[thresholds]\nfreshness = ["max<1"]', "thresholds.freshness", "freshness_ms"),
        ('[thresholds]\nfreshness_ms = ["max=<1"]', "thresholds.freshness_ms", "k6"),
        ('[thresholds]\nfreshness_ms = ["p(50)<1"]', "thresholds.freshness_ms", "k6"),
        ("[settings]\nbatch_age_ms = 1", "settings.batch_age_ms", "batch_age_ms_max"),
        ('[settings]\ndatabase = "mine"', "settings.database", "known are"),
        ('[[faults]]\nkind = "kill-worker"', "faults[0].at", "quotes"),
        ("nonsense", "mine.toml", "fix the line"),
    ],
)
def test_errors_name_file_key_and_remedy(text, key, remedy):
    """The error names file, key and remedy."""
    with pytest.raises(UsageError) as refused:
        parse(text, "mine.toml", "mine")
    assert "mine.toml" in refused.value.message
    assert key in refused.value.message
    assert remedy in str(refused.value)


def test_an_unknown_profile_names_the_nearest():
    """The error for a misspelt name suggests the nearest one."""
    with pytest.raises(UsageError, match="did you mean steady-day"):
        profile_files.load("stedy-day")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1h30m", 5400), ("5m", 300), ("250ms", 0.25), ("1.5s", 1.5)]
)
def test_durations(text, seconds):
    """Durations are written as k6 and Go write them."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", 5, None])
def test_a_duration_needs_a_unit(text):
    """A number without a unit is not a duration."""
    with pytest.raises(ValueError, match="is no duration"):
        seconds_of(text)


def test_faults_of_the_command_line():
    """KIND@AT+DURATION is parsed, and anything else is refused with that form."""
    fault = fault_of("pause-clickhouse@10s+500ms")
    assert (fault.kind, fault.at_seconds, fault.seconds) == ("pause-clickhouse", 10, 0.5)
    for wrong in ("pause-clickhouse", "pause@10s", "kill-worker@10"):
        with pytest.raises(UsageError, match="--fault"):
            fault_of(wrong)
