"""The commands that an import prints for files that it refuses are run as printed, and their lines are imported."""

import io
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing import import_file
from tests.support.files_log import read_log
from tests.unit.test_importing import STARTED, event

LINES = [event(event_id="a", user_agent="\u65e5\u672c"), event(event_id="b")]
TEXT = b"\n".join(LINES) + b"\n"
COMMAND = re.compile(r": (\w+ [^:]*\| adledger import /dev/stdin) \.\.\.$")


def tarred(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("logs/events.ndjson")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("events.ndjson", data)
    return buffer.getvalue()


def compressed(data: bytes) -> bytes:
    """Return what `compress` makes, with a literal code for each byte: 256 codes of 9 bits, up to 512 of 10."""
    assert len(data) <= 768
    bits, width = 0, 0
    for at, byte in enumerate(data):
        bits |= byte << width
        width += 9 if at < 256 else 10
    return b"\x1f\x9d\x90" + bits.to_bytes(-(-width // 8), "little")


def packed_by_lz4(data: bytes) -> bytes:
    return subprocess.run(["lz4", "-c"], input=data, capture_output=True, check=True).stdout


FILES: dict[str, tuple[str, Callable[[], bytes], list[bytes]]] = {
    "zip": ("unzip", lambda: zipped(TEXT), LINES),
    "tar": ("tar", lambda: tarred(TEXT), LINES),
    "lz4": ("lz4", lambda: packed_by_lz4(TEXT), LINES),
    "lzma": ("xz", lambda: lzma.compress(TEXT, lzma.FORMAT_ALONE), LINES),
    "compress": ("zcat", lambda: compressed(LINES[1]), LINES[1:]),
    "utf-16": ("iconv", lambda: TEXT.decode().encode("utf-16"), LINES),
    "utf-16 without a mark": ("iconv", lambda: TEXT.decode().encode("utf-16-be"), LINES),
    "utf-32": ("iconv", lambda: TEXT.decode().encode("utf-32"), LINES),
    "array": ("jq", lambda: b"[\n" + b",\n".join(LINES) + b"\n]\n", LINES),
    "pretty": ("jq", lambda: b"\n".join(orjson.dumps(orjson.loads(e), option=orjson.OPT_INDENT_2) for e in LINES), LINES),
}  # fmt: skip
"""File -> the program that its remedy needs, its bytes, the lines in it."""


@pytest.mark.parametrize("kind", FILES)
def test_the_printed_command_imports_the_file(tmp_path: Path, kind: str) -> None:
    """The file is refused with a command; the same command, with a format and a log, imports every line of it."""
    program, made, lines = FILES[kind]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    path = tmp_path / "a user's file"
    path.write_bytes(made())
    with pytest.raises(UsageError) as refused:
        import_file(path, "wire", tmp_path / "log", started_at_ms=STARTED)
    assert not (tmp_path / "log").exists()
    found = COMMAND.search(refused.value.remedy)
    assert found, refused.value.remedy
    command = found[1].replace("adledger", f"{sys.executable} -m adledger")
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} --format wire --to files:{tmp_path / 'log'}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    values = [r[3] for records in read_log(tmp_path / "log").values() for r in records]
    assert sorted(map(orjson.loads, values), key=str) == sorted(map(orjson.loads, lines), key=str)
