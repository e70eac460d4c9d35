"""What reading a package's list has in common: a list that can't be read is missing, and says why.

Rules that need a missing list are not evaluated; it never stops a lane. Which packages, and why: docs/adr/0013.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata, resources
from typing import Any, Generic, TypeVar

from adledger.pipeline.lists.facts import ListFacts, NotAsKnownError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A list and what is known of it; `value` is the empty list where it is missing."""

    facts: ListFacts
    value: T


def load_or_missing(name: str, source: str, empty: T, load: Callable[[], Loaded[T]]) -> Loaded[T]:
    """Return what `load` returns, or the list as missing where the package is not there or not as known."""
    try:
        return load()
    except (ImportError, OSError, NotAsKnownError) as e:
        problem = str(e) or type(e).__name__
        return Loaded(ListFacts(name, source, "", "", None, 0, "", None, problem=problem), empty)


def package_file(package: str, path: str) -> bytes:
    """Return a file of an installed package. Raises ImportError or OSError."""
    return resources.files(package).joinpath(path).read_bytes()


def version_of(distribution: str) -> str:
    """Return an installed distribution's version. Raises ImportError (PackageNotFoundError)."""
    return metadata.version(distribution)


def own_file(name: str) -> dict[str, Any]:
    """Return a file of pipeline/lists/data. It is ours: one that can't be parsed is a broken installation."""
    return tomllib.loads(package_file("adledger.pipeline.lists.data", name).decode())


def released(distribution: str) -> date:
    """Return the date that data/releases.toml notes for a distribution."""
    noted: date = own_file("releases.toml")[distribution]["date"]
    return noted
