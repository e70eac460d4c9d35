"""What a `files:` log is: `DIR/manifest.json`, written once, and the folder's layout.

DIR/manifest.json                                   topics, their ids, partitions: fixed from then on
DIR/ends.json                                       how far each partition is durable (adledger.pipeline.log.files.ends)
DIR/writer.lock                                     which process appends
DIR/<topic>-<partition>/<20-digit base offset>.log  segments of v2 record batches, as Kafka keeps them
DIR/groups/<group>/                                 committed offsets, and which process consumes
"""

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

import orjson

from adledger.pipeline.errors import LogError, UsageError
from adledger.pipeline.log.files.durable import not_read
from adledger.pipeline.log.source import Topology
from adledger.schemas.wire import TOPIC_CLICKS, TOPIC_IMPRESSIONS

FORMAT_VERSION = 1
PARTITIONS_DEFAULT = 16
PARTITIONS_MAX = 1_024
TOPICS_MAX = 8
MANIFEST_BYTES_MAX = 64 * 1024
MANIFEST = "manifest.json"
WRITER_LOCK = "writer.lock"

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")

IMPRESSIONS, CLICKS, BOTH = 1, 2, 0
"""Kinds of topics, as in Topology.kinds."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a log. `topic_id` (a uuid) tells it apart from another topic of the same name."""

    name: str
    kind: int
    topic_id: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fixed facts of a log, topics in topic-index order."""

    log_id: str
    topics: tuple[Topic, ...]
    partitions: int

    @property
    def topology(self) -> Topology:
        """The same facts as a `Topology`."""
        return Topology(
            topics=tuple(t.name for t in self.topics),
            kinds=tuple(t.kind for t in self.topics),
            topic_ids=tuple(t.topic_id for t in self.topics),
            partitions=self.partitions,
        )

    @classmethod
    def new(
        cls,
        partitions: int = PARTITIONS_DEFAULT,
        topics: tuple[tuple[str, int], ...] = ((TOPIC_IMPRESSIONS, IMPRESSIONS), (TOPIC_CLICKS, CLICKS)),
    ) -> "Manifest":
        """Return the manifest of a new log, with new ids; topics are (name, kind).

        Raises UsageError for a name or a number of partitions that a log can't have.
        """
        made = cls(str(uuid.uuid4()), tuple(Topic(n, k, str(uuid.uuid4())) for n, k in topics), partitions)
        made.check()
        return made

    def check(self) -> None:
        """Raise UsageError for impossible facts, for new and existing logs alike: a manifest names the folders to read."""
        if not 1 <= self.partitions <= PARTITIONS_MAX:
            raise UsageError(
                f"a log can't have {self.partitions} partitions", remedy=f"Choose from 1 to {PARTITIONS_MAX}."
            )
        if not 1 <= len(self.topics) <= TOPICS_MAX:
            raise UsageError(
                f"a log can't have {len(self.topics)} topics", remedy=f"Choose from 1 to {TOPICS_MAX}."
            )
        for topic in self.topics:
            check_name(topic.name, "topic")
            if topic.kind not in (BOTH, IMPRESSIONS, CLICKS):
                raise UsageError(
                    f"topic {topic.name} can't be of kind {topic.kind}",
                    remedy=f"Choose {IMPRESSIONS} (impressions), {CLICKS} (clicks) or {BOTH} (both).",
                )
        names = [topic.name for topic in self.topics]
        if len({*names}) != len(names):
            raise UsageError("two topics of a log can't have the same name", remedy="Give each its own name.")
        for what, text in (("log", self.log_id), *((f"topic {t.name}", t.topic_id) for t in self.topics)):
            if not _ID.fullmatch(text):
                raise UsageError(
                    f"the id of the {what} has characters that an id does not have",
                    remedy="Restore the original id.",
                )

    def to_json(self) -> bytes:
        """Return the manifest's file."""
        topics = [{"name": t.name, "kind": t.kind, "topic_id": t.topic_id} for t in self.topics]
        document = {
            "format": FORMAT_VERSION,
            "log_id": self.log_id,
            "partitions": self.partitions,
            "topics": topics,
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


def check_name(name: str, what: str) -> None:
    """Raise UsageError for a topic or group name that can't name a folder (Kafka's rule for topics)."""
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise UsageError(
            f"{name!r} can't be the name of a {what}",
            remedy="Use letters, digits, '.', '_' and '-', at most 249.",
        )


def partition_folder(log: Path, topic: str, partition: int) -> Path:
    """Return the folder of a topic's partition."""
    return log / f"{topic}-{partition}"


def read_manifest(log: Path) -> Manifest:
    """Return the manifest of the log in a folder. Raises LogError when there is none or it can't be parsed."""
    path = log / MANIFEST
    try:
        with path.open("rb") as file:
            document = orjson.loads(file.read(MANIFEST_BYTES_MAX))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LogError(
            f"{log} is not a log (it has no {MANIFEST})",
            remedy=f"Name a folder that `adledger import FILE --format ... --to files:{log}` has created.",
        ) from error
    except OSError as error:
        raise not_read(path, error) from error
    except orjson.JSONDecodeError as error:
        raise _unfit(path, str(error)) from error
    try:
        version = document["format"]
        if version != FORMAT_VERSION:
            raise _unfit(path, f"its format is {version}, this release reads {FORMAT_VERSION}")
        topics = tuple(Topic(str(t["name"]), int(t["kind"]), str(t["topic_id"])) for t in document["topics"])
        manifest = Manifest(str(document["log_id"]), topics, int(document["partitions"]))
        manifest.check()
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit(path, f"{type(error).__name__}: {error}") from error
    except UsageError as error:
        raise _unfit(path, error.message) from error
    return manifest


def _unfit(path: Path, reason: str) -> LogError:
    return LogError(
        f"{path} can't be used: {reason}",
        remedy="It is written once and must not change; restore it, or read the log with the release that wrote it.",
    )
