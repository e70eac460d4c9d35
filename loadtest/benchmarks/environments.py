"""Each peer's own environment, made once in the user's cache: a venv of pip, or a folder of jars by Maven."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from adledger import __version__
from adledger.loadtest.benchmarks.catalog import ContestantKind, Peer
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
"""What the tally of every peer in Python parses with."""
READY = ".ready"


class PeerMissing(AdledgerError):  # noqa: N818
    """A peer can't be had on this machine."""


def command(peer: Peer, arguments: list[str]) -> list[str]:
    """Return how a peer is run, made ready where it is not. Raises PeerMissing."""
    if peer.kind is ContestantKind.DATA_PATH:
        return [sys.executable, "-m", "adledger.loadtest.benchmarks.data_path", *arguments]
    if peer.kind is ContestantKind.FLINK:
        folder = _made(peer, (FLINK / "pom.xml").read_text() + _java().read_text())
        opens = ["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"]
        return ["java", "-Xmx3g", *opens, "-cp", f"{folder}/classes:{folder}/jars/*", "adledger.peers.FlinkJob", *arguments]  # fmt: skip
    folder = _made(peer, " ".join(_requirements(peer)))
    return [str(folder / "bin" / "python"), str(CLIENTS / peer.script), *arguments]


def versions(peer: Peer) -> str:
    """Return the versions of what a peer is made of, as a person reads them."""
    if peer.kind in {ContestantKind.DATA_PATH, ContestantKind.ADLEDGER}:
        return f"adledger {__version__}"
    if peer.kind is ContestantKind.FLINK:
        jars = (folder_of(peer, (FLINK / "pom.xml").read_text() + _java().read_text()) / "jars").glob("*.jar")
        wanted = ("flink-streaming-java", "flink-connector-kafka")
        return ", ".join(sorted(jar.stem for jar in jars if jar.name.startswith(wanted)))
    return ", ".join(CONSTRAINTS[package].replace("==", " ") for package in peer.packages)


def folder_of(peer: Peer, contents: str) -> Path:
    """Return where an environment of these contents is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = peer.packages[0] if peer.packages else peer.name
    return Path(base) / "adledger" / "peers" / f"{name}-{hashlib.sha256(contents.encode()).hexdigest()[:12]}"


def _made(peer: Peer, contents: str) -> Path:
    folder = folder_of(peer, contents)
    if (folder / READY).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if peer.kind is ContestantKind.FLINK:
        for tool in ("java", "mvn", "javac"):
            if shutil.which(tool) is None:
                raise PeerMissing(f"{peer.title}: no {tool} on the PATH", remedy="install a JDK 17 and Maven")
        _run(peer, ["mvn", "-q", "-B", "-f", str(FLINK / "pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars"])  # fmt: skip
        _run(peer, ["javac", "-cp", f"{folder}/jars/*", "-d", f"{folder}/classes", str(_java())])
    else:
        _run(peer, [sys.executable, "-m", "venv", str(folder)])
        _run(peer, [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *_requirements(peer)])
    (folder / READY).touch()
    return folder


def _requirements(peer: Peer) -> list[str]:
    return [*(CONSTRAINTS[package] for package in peer.packages), *SHARED]


def _java() -> Path:
    return FLINK / "src" / "main" / "java" / "adledger" / "peers" / "FlinkJob.java"


def _run(peer: Peer, what: list[str]) -> None:
    try:
        done = subprocess.run(what, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise PeerMissing(
            f"{peer.title}: {what[0]} took over {INSTALL_SECONDS_MAX} s", remedy="try again"
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-400:]
        raise PeerMissing(f"{peer.title} can't be installed: {said}", remedy=f"by hand: {' '.join(what)}")
