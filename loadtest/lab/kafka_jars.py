"""Apache Kafka's jars: fetched once by Maven, kept in the user's cache."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from adledger.pipeline.errors import AdledgerError

POM = Path(__file__).parent / "kafka-pom.xml"
FETCH_SECONDS_MAX = 300


class KafkaMissing(AdledgerError):  # noqa: N818
    """A broker is unavailable on this machine: no Java, no Maven, or Maven can't fetch the jars."""


def kafka_jars(pom: Path = POM, version: str = "") -> Path:
    """Return the folder of the jars; Maven fetches those that are missing. Raises KafkaMissing.

    `version` replaces the kafka.version of the POM.
    """
    if shutil.which("java") is None:
        raise KafkaMissing(
            "no java on the PATH: Kafka needs Java 17 or newer",
            remedy="install a JRE, e.g. openjdk-17-jre-headless",
        )
    named = pom.read_bytes() + version.encode()
    folder = _cache() / f"kafka-{hashlib.sha256(named).hexdigest()[:12]}"
    if not folder.is_dir():
        _fetch(folder, pom, [f"-Dkafka.version={version}"] if version else [])
    return folder


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "adledger"


def _fetch(folder: Path, pom: Path, properties: Sequence[str]) -> None:
    """Fetch into a folder beside it, and rename: an interrupted fetch leaves no partial folder."""
    if shutil.which("mvn") is None:
        raise KafkaMissing(
            "no mvn on the PATH: Kafka's jars are fetched by Maven",
            remedy="install Maven, e.g. apt-get install maven",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="kafka-") as scratch:
        jars = Path(scratch) / "jars"
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}", *properties]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX, check=False)  # noqa: S603
        if done.returncode:
            output = (done.stdout + done.stderr).strip().splitlines()
            raise KafkaMissing(
                f"Maven could not fetch Kafka's jars: {output[0] if output else f'exit code {done.returncode}'}",
                remedy=f"run it by hand to see why: {' '.join(command)}",
            )
        try:
            jars.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster
                raise
