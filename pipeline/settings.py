"""Every setting: its name, unit, default, bounds, and the reason for them.

`Settings(...)` takes values as they are given and reads nothing else; `adledger.pipeline.settings_layers.load` finds the
values in flags, environment and file. A limit's description says what happens when it is reached.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from adledger.pipeline.addresses import (
    ClickHouseAddress,
    EmbeddedAddress,
    FilesAddress,
    KafkaAddress,
    ServerAddress,
    SourceAddress,
    parse_clickhouse,
    parse_source,
)
from adledger.pipeline.settings_kafka import KAFKA_PROPERTIES
from adledger.schemas.periods import CLOSE_DELAY_MINUTES
from adledger.schemas.wire import RECORD_BYTES_MAX, TOPIC_CLICKS, TOPIC_IMPRESSIONS

KIB, MIB = 1024, 1024 * 1024

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""A ClickHouse identifier that needs no quotes."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _address(parse: object) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)  # type: ignore[operator]


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


_AS_TEXT = PlainSerializer(str, return_type=str)

Source = Annotated[FilesAddress | KafkaAddress, _address(parse_source), _AS_TEXT, NoDecode]
ClickHouse = Annotated[EmbeddedAddress | ServerAddress, _address(parse_clickhouse), _AS_TEXT, NoDecode]
Topics = Annotated[tuple[str, ...], BeforeValidator(_comma_separated), NoDecode]


class Settings(BaseSettings):
    """The settings of one run. Immutable; a contradiction is a pydantic ValidationError."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="ADLEDGER_")

    # where
    source: Source = Field(
        KafkaAddress(("localhost:9092",)), description="The log: files:DIR, or kafka://HOST:PORT[,HOST:PORT...]."
    )  # fmt: skip
    clickhouse: ClickHouse = Field(
        ServerAddress("localhost", 9000, 8123),
        description="ClickHouse: clickhouse://USER@HOST:PORT/?secure=1&http_port=8443&password_file=FILE (or "
        "USER:PASSWORD@), with secure=1 also ca=FILE, certificate=FILE, key=FILE, server_name=NAME; or embedded:DIR for our "
        "own server, started and stopped with the command (demos and tests).",
    )
    database: str = Field(
        "adledger", pattern=NAME, max_length=64,
        description="The database of all tables. With different names, several runs share a server.",
    )  # fmt: skip
    cluster: str | None = Field(
        None, pattern=NAME,
        description="ClickHouse's cluster: tables are Replicated, made ON CLUSTER; an insert waits for a quorum. None: one server.",
    )  # fmt: skip
    topics: Topics = Field(
        (TOPIC_IMPRESSIONS, TOPIC_CLICKS), min_length=1, max_length=2,
        description="Topics of impressions and of clicks, in this order, or one topic that carries both.",
    )  # fmt: skip
    group: str = Field(
        "adledger", pattern=r"^[A-Za-z0-9._-]+$", max_length=249,
        description="The consumer group. Its committed offsets carry the lanes' intents: never share it.",
    )  # fmt: skip
    rollups_topic: str = Field(
        "ad.rollups", pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="The topic with one message for each done batch, for the live pages and for consumers of your own. A "
        "message may repeat: drop repeats by lane and batch number.",
    )  # fmt: skip
    kafka: Mapping[str, str] = Field(
        {},
        repr=False,  # it may hold passwords
        description="Kafka client properties under Kafka's own names (security.protocol, sasl.mechanism ...): the "
        "[kafka] section, or ADLEDGER_KAFKA_SASL_PASSWORD and the like. sasl.password.file and ssl.key.password.file name "
        "files with the secret alone in them.",
    )

    # what counts
    currency: str = Field(
        "USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 currency of events that name none."
    )
    log_time: Literal["append", "record"] = Field(
        "append",
        description="Which time of a record on Kafka is its log time: the broker's append time, or the record's own "
        "(imports and backfills only, on topics of their own). A files: log always stores its log time.",
    )
    dedupe_window_hours: int = Field(
        24, ge=1, le=168,
        description="A later event with the same identity within this much log time of the first is a duplicate. "
        "Each event in the window takes 33 to 80 bytes of memory. Beyond it, a repeat is expired or counts again.",
    )  # fmt: skip
    allowed_lateness_hours: int = Field(
        24, ge=1, le=168,
        description="An event whose time is further behind its lane's watermark is expired: recorded, never billed. At "
        "most the dedupe window, or a late retry would be billed twice.",
    )  # fmt: skip
    period_close_delay_minutes: int = Field(
        CLOSE_DELAY_MINUTES, ge=1, le=24 * 60, description="How long after its end a period of 15 minutes closes, by the "
        "lanes' watermarks. Workers must agree, so the database has it too, and another value is refused at start.",
    )  # fmt: skip
    period_closing_enabled: bool = Field(
        default=False, description="Whether workers close periods every minute (the owner of lane 0 does it), as "
        "`adledger periods close` does. The first closing decides for good where the books begin.",
    )  # fmt: skip
    rule_horizon_minutes_max: int = Field(
        60, ge=1, le=24 * 60,
        description="The longest window that a fraud rule may look back in. It bounds the rules' memory and the "
        "rebuild at start; a rule set that asks for more is refused.",
    )  # fmt: skip
    rules: str = Field(
        "published", min_length=1,
        description="The fraud rules: `published` (the newest set from `adledger rules publish`; until there is one, the set "
        "that ships with adledger), `default` (the shipped set, whatever is published), a rule set's TOML file, or `none`. "
        "An invalid set is refused as a whole.",
    )  # fmt: skip
    rules_poll_seconds: int = Field(
        5, ge=1, le=3_600,
        description="How often a worker polls ClickHouse for newly published rules, publishers and alerts. They take effect "
        "with each lane's next batch.",
    )  # fmt: skip
    lists_dir: Path | None = Field(
        None,
        description="Directory of the deployment's allow and deny lists (*.toml, `adledger lists lint`). They are read "
        "when a rule set is loaded; an invalid list is refused as a whole.",
    )
    list_age_days_max: int = Field(
        365, ge=1, le=3_650,
        description="A packaged list older than this is not used, and its rules report `not evaluated`. Upgrade the packages "
        "to renew lists, ideally every month; `adledger lists status` reports `ageing` from half of this age.",
    )  # fmt: skip

    # batches: each is one insert into each table, so they set both memory and ClickHouse's load
    batch_rows_max: int = Field(
        131_072, ge=1, le=1_048_576,
        description="A batch is closed at this many records. Columns of 128 Ki rows fit in the CPU caches; "
        "ClickHouse wants inserts of 10,000 rows or more.",
    )  # fmt: skip
    batch_bytes_max: int = Field(
        64 * MIB, ge=RECORD_BYTES_MAX, le=1024 * MIB,
        description="A batch is closed at this many bytes of records, so that long records can't make a batch too large "
        "for memory. At least one record always fits.",
    )  # fmt: skip
    batch_age_ms_max: int = Field(
        1_000, ge=1, le=60_000,
        description="A batch is closed this long after its first record arrived. This is the price of freshness: shorter "
        "means more inserts per second.",
    )  # fmt: skip
    fetch_bytes_max: int = Field(
        8 * MIB, ge=RECORD_BYTES_MAX, le=256 * MIB,
        description="Each fetch requests at most this much of a partition; a larger record batch still arrives whole. "
        "Fetching stops while a lane holds a full batch.",
    )  # fmt: skip
    inserts_per_second_max: int = Field(
        100, ge=1, le=10_000,
        description="Inserts per second of this worker, over all lanes and tables (expect lanes x tables / batch age). At "
        "the limit batches wait and grow, and lanes pause.",
    )  # fmt: skip
    cpu_threads: int = Field(
        default_factory=cores, ge=1, le=256,
        description="Threads for decoding and counting; kernels run without the GIL. Default: the cores that this "
        "process may use.",
    )  # fmt: skip

    # deadlines, clocks and retries
    write_deadline_seconds: int = Field(
        10, ge=1, le=300,
        description="ClickHouse refuses a block that arrives later than this after its intent. A lane in doubt "
        "waits this long; shorter recovers faster, longer tolerates slower inserts.",
    )  # fmt: skip
    clock_skew_seconds_max: int = Field(
        60, ge=1, le=3_600,
        description="How far the clocks of brokers and ClickHouse may differ. An idle lane's watermark advances to "
        "ClickHouse's time minus this.",
    )  # fmt: skip
    idle_watermark_interval_seconds: int = Field(
        60, ge=1, le=3_600,
        description="On Kafka, a lane without records for this long writes an empty batch that advances its watermark, so "
        "that time-based work downstream can proceed. Each such batch is a ledger row.",
    )  # fmt: skip
    retry_attempts_max: int = Field(
        10, ge=1, le=1_000,
        description="Tries at reaching a server that does not answer, the first included and each shown, before the command gives up with an "
        "error: at start, and with --until-caught-up. A worker that runs waits as long as the server is away. Never "
        "applied to a commit or insert whose outcome is unknown.",
    )  # fmt: skip
    retry_backoff_ms_max: int = Field(
        5_000, ge=1, le=60_000,
        description="The longest pause between two tries; pauses double from 100 ms up to it, less up to half of each by chance.",
    )  # fmt: skip
    retention_min_hours: int = Field(
        72, ge=1, le=8_760,
        description="How long workers may be down and still find every record: a weekend. Kafka's topics must retain at "
        "least this plus the dedupe window, and committed offsets at least this; a worker refuses to start with less.",
    )  # fmt: skip
    revoke_ms_max: int = Field(
        5_000, ge=100, le=300_000,
        description="Time for a revoked lane to finish its batch. After that the batch is abandoned, and the lane's next "
        "owner resolves it.",
    )  # fmt: skip

    # retention, in days of the watermark, behind the lane that is furthest behind
    retention_enabled: bool = Field(
        default=False, description="Whether workers on Kafka drop old days every hour (the owner of lane 0 does it). `adledger "
        "retention` does the same on demand.",
    )  # fmt: skip
    retention_events_days: int = Field(
        90, ge=1, le=36_500,
        description="Days that `events` and `dead_letters` are kept: what disputes and replays need. A day is about 109 "
        "bytes an event. Never less than the dedupe window and the rules' horizon.",
    )  # fmt: skip
    retention_rollups_days: int = Field(
        400, ge=1, le=36_500,
        description="Days that `rollup_minute` is kept: more than a year, so that a month can be compared with the same "
        "month of the year before.",
    )  # fmt: skip
    retention_ledger_days: int = Field(
        3_650, ge=1, le=36_500,
        description="Days that the ledger is kept: it is small (a row for each batch) and proves every count, so keep it as "
        "long as the accounts. At least as long as the other two.",
    )  # fmt: skip

    # pages and log lines
    web_host: str = Field(
        "127.0.0.1", min_length=1, max_length=253,
        description="The address that a Kafka worker's pages listen on. The default is this machine only; probes and "
        "scrapers that come from outside need 0.0.0.0 or the address of one network.",
    )  # fmt: skip
    web_port: int = Field(
        6066, ge=0, le=65_535,
        description="The port of a Kafka worker's pages (/livez, /readyz, /metrics, /publishers/ID/live), logged at start. "
        "Where it is not set, a second worker on a machine takes the next free one; 0 lets the system choose.",
    )  # fmt: skip
    log_format: Literal["logfmt", "json"] = Field(
        "logfmt", description="How a Kafka worker writes log lines: ts=... level=... logger=... msg=..., or JSON with these keys."
    )  # fmt: skip
    event_log: Path | None = Field(
        None, description="File to which a worker appends what happens in its lanes, a JSON object a line; one a worker."
    )  # fmt: skip

    @classmethod
    def settings_customise_sources(  # noqa: D102 - pydantic-settings' hook
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Only what the constructor is given: the layers are merged, with their origins, in settings_layers.
        return (init_settings,)

    @field_validator("topics")
    @classmethod
    def _topic_names(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for topic in topics:
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
                raise ValueError(f"{topic!r} is not a topic's name: letters, digits, . _ -, at most 249")
        if len(set(topics)) < len(topics):
            raise ValueError("both topics have the same name; name a topic that carries both kinds once")
        return topics

    @field_validator("allowed_lateness_hours")
    @classmethod
    def _accepted_within_window(cls, hours: int, info: ValidationInfo) -> int:
        window = info.data.get("dedupe_window_hours", hours)
        if hours > window:
            raise ValueError(f"more than dedupe_window_hours ({window}): a late retry would be billed twice")
        return hours

    @field_validator("retention_ledger_days")
    @classmethod
    def _ledger_longest(cls, days: int, info: ValidationInfo) -> int:
        others = ("retention_events_days", "retention_rollups_days")
        longest = max(info.data.get(name, days) for name in others)
        if days < longest:
            raise ValueError(
                f"less than {' or '.join(others)} ({longest}): rows would outlive their ledger row"
            )
        return days

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.cluster is not None and isinstance(self.clickhouse, EmbeddedAddress):
            raise ValueError(
                f"cluster = {self.cluster} contradicts clickhouse = {self.clickhouse}: the embedded server is one "
                "server; leave cluster out, or name a server of the cluster"
            )
        live = set(self.topics) & {TOPIC_IMPRESSIONS, TOPIC_CLICKS}
        if self.log_time == "record" and isinstance(self.source, KafkaAddress) and live:
            raise ValueError(
                f"log_time = record contradicts topics = {','.join(self.topics)}: producers could set the clock of "
                "live topics; give the backfill its own topics and group, or leave log_time at append"
            )
        return self


__all__ = ["KAFKA_PROPERTIES", "ClickHouseAddress", "Settings", "SourceAddress", "cores"]
