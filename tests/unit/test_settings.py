"""Settings: the first layer that names one wins, and whatever is wrong is refused whole, by name and origin."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adledger.pipeline.addresses import (
    EmbeddedAddress,
    FilesAddress,
    KafkaAddress,
    ServerAddress,
    parse_clickhouse,
    parse_source,
)
from adledger.pipeline.errors import UsageError
from adledger.pipeline.settings import Settings
from adledger.pipeline.settings_layers import RENAMED, load, masked


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings file and environment variables of the user who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for variable in [v for v in os.environ if v.startswith("ADLEDGER_")]:
        monkeypatch.delenv(variable)


def test_flag_wins_over_environment_over_file_over_default(monkeypatch, tmp_path):
    """The first layer that names a setting decides it, and the origin says which that was."""
    file = tmp_path / "some.toml"
    file.write_text("group = 'file'\ndatabase = 'file'\ncurrency = 'EUR'\n")
    monkeypatch.setenv("ADLEDGER_GROUP", "environment")
    monkeypatch.setenv("ADLEDGER_DATABASE", "environment")
    loaded = load({"group": "flag", "database": None}, config=file)
    s = loaded.settings
    assert (s.group, s.database, s.currency, s.log_time) == ("flag", "environment", "EUR", "append")
    assert {n: loaded.origins[n] for n in ("group", "database", "currency", "log_time")} == {
        "group": "flag --group",
        "database": "environment ADLEDGER_DATABASE",
        "currency": f"file {file}",
        "log_time": "default",
    }


def test_assignments_reach_every_setting():
    """`--set NAME=VALUE` sets any setting; dashes and underscores are the same."""
    s = load(assignments=["batch-rows-max=10", "topics=one", "kafka.sasl.password=x"]).settings
    assert (s.batch_rows_max, s.topics, s.kafka) == (10, ("one",), {"sasl.password": "x"})


@pytest.mark.parametrize("named_by", ["flag", "environment", "folder"])
def test_the_file_is_the_one_that_is_named(monkeypatch, tmp_path, named_by):
    """--config, ADLEDGER_CONFIG and ./adledger.toml each name the file."""
    file = tmp_path / "adledger.toml"
    file.write_text("group = 'g'\n")
    if named_by == "environment":
        monkeypatch.chdir("/")
        monkeypatch.setenv("ADLEDGER_CONFIG", str(file))
    assert load(config=file if named_by == "flag" else None).settings.group == "g"


def test_a_named_file_must_exist(tmp_path):
    """A named file that does not exist is an error, never ignored."""
    with pytest.raises(UsageError, match=r"no settings file at .*absent\.toml"):
        load(config=tmp_path / "absent.toml")


def test_a_broken_file_is_named_with_its_line(tmp_path):
    """Invalid TOML is refused with file and line."""
    file = tmp_path / "broken.toml"
    file.write_text("group = 'g'\nbatch_rows_max =\n")
    with pytest.raises(UsageError, match=r"broken\.toml is not TOML: .*line 2"):
        load(config=file)


def test_everything_wrong_is_reported_at_once(monkeypatch, tmp_path):
    """One refusal lists each wrong setting: name, value, origin, remedy."""
    file = tmp_path / "adledger.toml"
    file.write_text("batch_row_max = 5\n[kafka]\nsecurity.protokol = 'SSL'\n")
    monkeypatch.setenv("ADLEDGER_GRUOP", "x")
    monkeypatch.setenv("ADLEDGER_BATCH_AGE_MS_MAX", "soon")
    with pytest.raises(UsageError) as refused:
        load({"currency": "usd"})
    text = str(refused.value)
    for part in (
        "5 settings are refused",
        "batch_row_max = *** (from file adledger.toml): there is no such setting\n    remedy: did you mean batch_rows_max?",
        "kafka.security.protokol = *** (from file adledger.toml)",
        "did you mean security.protocol?",
        "gruop = *** (from environment ADLEDGER_GRUOP)",
        "batch_age_ms_max = soon (from environment ADLEDGER_BATCH_AGE_MS_MAX)",
        "currency = usd (from flag --currency)",
    ):
        assert part in text
    assert refused.value.exit_code == 2


def test_kafka_properties_come_from_every_layer(monkeypatch, tmp_path):
    """The section is merged property by property, so that a secret may stay out of the file."""
    file = tmp_path / "adledger.toml"
    file.write_text("[kafka]\nsecurity.protocol = 'SASL_SSL'\n'session.timeout.ms' = 6000\n")
    monkeypatch.setenv("ADLEDGER_KAFKA_SASL_PASSWORD", "hush")
    loaded = load()
    assert loaded.settings.kafka == {
        "security.protocol": "SASL_SSL",
        "session.timeout.ms": "6000",
        "sasl.password": "hush",
    }
    assert loaded.origins["kafka.sasl.password"] == "environment ADLEDGER_KAFKA_SASL_PASSWORD"


@pytest.mark.parametrize(
    "contradiction",
    [
        {"allowed_lateness_hours": 25},
        {"dedupe_window_hours": 12},
        {"topics": ("a", "a")},
        {"clickhouse": "embedded:d", "cluster": "c"},
        {"source": "kafka://h:1", "log_time": "record"},
        {"batch_bytes_max": 16 * 1024 - 1},
    ],
    ids=str,
)
def test_contradictions_are_refused(contradiction):
    """Settings that contradict each other are refused, and the error names one of them."""
    with pytest.raises(UsageError) as refused:
        load(contradiction)
    assert any(name in str(refused.value) for name in contradiction)


def test_record_time_is_for_topics_of_their_own():
    """A backfill's own topics may have record time; so may any files: log."""
    assert load({"source": "kafka://h:1", "log_time": "record", "topics": "bf"}).settings.log_time == "record"
    assert load({"source": "files:d", "log_time": "record"}).settings.log_time == "record"


def test_every_setting_says_why():
    """Each has a default and a description; each number has bounds and its unit in the name."""
    units = ("_max", "_days", "_hours", "_minutes", "_seconds", "_threads", "_port")
    for name, setting in Settings.model_fields.items():
        assert setting.description, name
        assert not setting.is_required(), name
        if setting.annotation is int:
            assert {type(m).__name__ for m in setting.metadata} >= {"Ge", "Le"}, name
            assert name.endswith(units), name


def test_settings_do_not_change():
    """A run's settings are one immutable value that reads nothing from its environment."""
    with pytest.raises(ValidationError):
        Settings().group = "other"


def test_constructor_ignores_environment(monkeypatch):
    """Only `load` reads the environment; Settings() is what it is given."""
    monkeypatch.setenv("ADLEDGER_GROUP", "environment")
    assert Settings().group == "adledger"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("files:a/b", FilesAddress(Path("a/b"))),
        ("kafka://h", KafkaAddress(("h:9092",))),
        ("kafka://h:1,[::1]:2/", KafkaAddress(("h:1", "[::1]:2"))),
    ],
)
def test_sources(text, address):
    """Each form of a log's address is parsed."""
    assert parse_source(text) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("embedded:/d", EmbeddedAddress(Path("/d"))),
        ("clickhouse://h", ServerAddress("h", 9000, 8123)),
        ("clickhouse://u:p%40ss@h/?secure=1", ServerAddress("h", 9440, 8443, "u", "p@ss", secure=True)),
        ("clickhouse://[::1]:1?http_port=2", ServerAddress("::1", 1, 2)),
    ],
)
def test_clickhouses(text, address):
    """Each form of ClickHouse's address is parsed, with the default ports of its clients."""
    assert parse_clickhouse(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "files:", "files", "kafka:h", "kafka://", "kafka://h:1,", "kafka://u@h", "kafka://h:x", "kafka://h/p", "http://h"],
)  # fmt: skip
def test_invalid_sources_are_refused(text):
    """Anything else is refused with the valid forms."""
    with pytest.raises(ValueError, match="files:DIR"):
        parse_source(text)


@pytest.mark.parametrize(
    "text",
    ["", "embedded:", "clickhouse:h", "clickhouse://", "clickhouse://h:x", "clickhouse://h/db", "clickhouse://h/?a=1",
     "clickhouse://h/?secure=maybe", "clickhouse://h/?http_port=0", "http://h"],
)  # fmt: skip
def test_invalid_clickhouse_addresses_are_refused(text):
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"embedded:DIR|database|secure"):
        parse_clickhouse(text)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_passwords_survive_and_never_show(password):
    """Any password survives a URL, and no string made of the address contains it."""
    from urllib.parse import quote

    address = parse_clickhouse(f"clickhouse://user:{quote(password, safe='')}@host")
    assert address.password == password
    secret = "\x01" + password
    address = ServerAddress("host", 9000, 8123, "user", secret)
    assert secret not in str(address) + repr(address)


def test_secrets_are_masked_wherever_a_value_is_shown():
    """Names that suggest a secret, and passwords in URLs, are masked."""
    assert masked("kafka.sasl.password", "x") == "***"
    assert masked("clickhouse", "clickhouse://u:p@h:9000/") == "clickhouse://u:***@h:9000/"
    with pytest.raises(UsageError) as refused:
        load({"clickhouse": "clickhouse://u:hush@h/?bad=1"})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(("before", "now"), RENAMED.items())
def test_a_former_name_is_refused_with_the_current_name(tmp_path, before, now):
    """A config file from before a rename does not fall back to the default silently, and following the remedy works."""
    file = tmp_path / "some.toml"
    file.write_text(f"{before} = 7\n")
    with pytest.raises(UsageError, match=f"{before} = 7 .*new name\n.*remedy: write {now}$"):
        load(config=file)
    file.write_text(f"{now} = 7\n")
    assert getattr(load(config=file).settings, now) == 7
