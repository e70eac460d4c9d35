"""Each contestant's own environment, made once in the user's cache: a venv of pip, or a folder of jars by Maven."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from adledger import __version__
from adledger.loadtest.benchmarks.catalog import Contestant, ContestantKind
from adledger.pipeline.errors import AdledgerError

HERE = Path(__file__).parent
CLIENTS = HERE / "clients"
FLINK = HERE / "flink"
INSTALL_SECONDS_MAX = 600
CONSTRAINTS = {
    "faust-streaming": "faust-streaming==0.15.3",
    "quixstreams": "quixstreams==3.28.1",
    "aiokafka": "aiokafka==0.14.0",
    "confluent-kafka": "confluent-kafka==2.16.1",
}
SHARED = ("orjson==3.13.0",)
"""The JSON parser of every contestant in Python."""
READY = ".ready"


class ContestantUnavailable(AdledgerError):  # noqa: N818
    """A contestant is unavailable on this machine."""


def command(contestant: Contestant, arguments: list[str]) -> list[str]:
    """Return the command of a contestant, whose environment is created if needed. Raises ContestantUnavailable."""
    if contestant.kind is ContestantKind.DATA_PATH:
        return [sys.executable, "-m", "adledger.loadtest.benchmarks.data_path", *arguments]
    if contestant.kind is ContestantKind.FLINK:
        folder = _made(contestant, (FLINK / "pom.xml").read_text() + _java().read_text())
        opens = ["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"]
        return ["java", "-Xmx3g", *opens, "-cp", f"{folder}/classes:{folder}/jars/*", "adledger.benchmarks.FlinkJob", *arguments]  # fmt: skip
    folder = _made(contestant, " ".join(_requirements(contestant)))
    return [str(folder / "bin" / "python"), str(CLIENTS / contestant.script), *arguments]


def versions(contestant: Contestant) -> str:
    """Return the versions of a contestant's packages, in readable form."""
    if contestant.kind in {ContestantKind.DATA_PATH, ContestantKind.ADLEDGER}:
        return f"adledger {__version__}"
    if contestant.kind is ContestantKind.FLINK:
        jars = (folder_of(contestant, (FLINK / "pom.xml").read_text() + _java().read_text()) / "jars").glob(
            "*.jar"
        )
        wanted = ("flink-streaming-java", "flink-connector-kafka")
        return ", ".join(sorted(jar.stem for jar in jars if jar.name.startswith(wanted)))
    return ", ".join(CONSTRAINTS[package].replace("==", " ") for package in contestant.packages)


def folder_of(contestant: Contestant, contents: str) -> Path:
    """Return where an environment of these contents is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = contestant.packages[0] if contestant.packages else contestant.name
    return (
        Path(base)
        / "adledger"
        / "benchmarks"
        / f"{name}-{hashlib.sha256(contents.encode()).hexdigest()[:12]}"
    )


def _made(contestant: Contestant, contents: str) -> Path:
    folder = folder_of(contestant, contents)
    if (folder / READY).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if contestant.kind is ContestantKind.FLINK:
        for tool in ("java", "mvn", "javac"):
            if shutil.which(tool) is None:
                raise ContestantUnavailable(
                    f"{contestant.title}: no {tool} on the PATH", remedy="install a JDK 17 and Maven"
                )
        _run(contestant, ["mvn", "-q", "-B", "-f", str(FLINK / "pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars"])  # fmt: skip
        _run(contestant, ["javac", "-cp", f"{folder}/jars/*", "-d", f"{folder}/classes", str(_java())])
    else:
        _run(contestant, [sys.executable, "-m", "venv", str(folder)])
        _run(
            contestant,
            [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *_requirements(contestant)],
        )
    (folder / READY).touch()
    return folder


def _requirements(contestant: Contestant) -> list[str]:
    return [*(CONSTRAINTS[package] for package in contestant.packages), *SHARED]


def _java() -> Path:
    return FLINK / "src" / "main" / "java" / "adledger" / "benchmarks" / "FlinkJob.java"


def _run(contestant: Contestant, what: list[str]) -> None:
    try:
        done = subprocess.run(what, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise ContestantUnavailable(
            f"{contestant.title}: {what[0]} took over {INSTALL_SECONDS_MAX} s", remedy="try again"
        ) from None
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-400:]
        raise ContestantUnavailable(
            f"{contestant.title} can't be installed: {output}", remedy=f"by hand: {' '.join(what)}"
        )
