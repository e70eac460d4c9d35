"""The contestants: what each is, its environment, and how many events it gets."""

from dataclasses import dataclass
from enum import StrEnum


class ContestantKind(StrEnum):
    """How a contestant is run."""

    PYTHON = "python"
    FLINK = "flink"
    DATA_PATH = "data-path"
    ADLEDGER = "adledger"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the job. The table shows the versions of `packages`; `events` keep it busy for about ten seconds."""

    name: str
    title: str
    kind: ContestantKind
    events: int
    packages: tuple[str, ...] = ()
    script: str = ""
    before: tuple[int, int] | None = None
    """Events per CPU-second that were measured earlier, from and to."""


SMALLEST, SMALL, LARGE = 20_000, 200_000, 2_000_000

CONTESTANTS = (
    Contestant("faust-tables", "Faust, state in tables", ContestantKind.PYTHON, SMALLEST, ("faust-streaming",), "faust_tables.py"),
    Contestant("faust", "Faust agent, Python set", ContestantKind.PYTHON, SMALL, ("faust-streaming",), "faust_agent.py", (10_000, 10_000)),
    Contestant("quix", "Quix Streams, stateful windows", ContestantKind.PYTHON, SMALL, ("quixstreams",), "quix_windowed.py", (7_400, 7_400)),
    Contestant("quix-set", "Quix Streams, Python set", ContestantKind.PYTHON, LARGE // 4, ("quixstreams",), "quix_set.py", (59_000, 59_000)),
    Contestant("flink", "Flink, keyed state and windows", ContestantKind.FLINK, LARGE, before=(46_000, 94_000)),
    Contestant("aiokafka", "aiokafka loop, Python set", ContestantKind.PYTHON, LARGE, ("aiokafka",), "aiokafka_loop.py", (158_000, 158_000)),
    Contestant("confluent", "confluent-kafka loop, Python set", ContestantKind.PYTHON, LARGE, ("confluent-kafka",), "confluent_loop.py", (201_000, 201_000)),
    Contestant("data-path", "adledger, data path alone", ContestantKind.DATA_PATH, 2 * LARGE),
    Contestant("adledger", "adledger, into ClickHouse", ContestantKind.ADLEDGER, 2 * LARGE),
)  # fmt: skip


def contestant(name: str) -> Contestant:
    """Return the contestant of this name. Raises KeyError."""
    return {contestant.name: contestant for contestant in CONTESTANTS}[name]
