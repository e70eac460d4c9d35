"""The names of a run's topics, group and database."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """Names that a run creates and `clean` removes: all of them belong to the run."""

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
