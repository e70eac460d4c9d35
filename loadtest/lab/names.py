"""The names of what a run makes in Kafka and ClickHouse."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """What a run makes and `clean` removes: all of these are the run's own."""

    database: str
    topics: tuple[str, ...]
    rollups_topic: str
    group: str

    @classmethod
    def starting_with(cls, base: str) -> "Names":
        """Return a run's names: its database and group are `base`, its topics begin with it."""
        return cls(
            database=base, topics=(f"{base}.impressions", f"{base}.clicks"), rollups_topic=f"{base}.rollups", group=base
        )  # fmt: skip
