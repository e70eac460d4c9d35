"""Recognises files that are not lines of UTF-8 text by their first bytes, as `file` does."""

from typing import NamedTuple

HEAD_BYTES = 64 * 1024
"""How much of a file's decompressed beginning is examined."""

_UTF16_BYTES_MIN = 8
_NUL_SHARE_UTF16 = 0.25
"""In UTF-16, nearly every second byte of ASCII text is NUL; a quarter distinguishes it from stray NULs."""


class Foreign(NamedTuple):
    """What a file is, and the command or step that converts it to lines."""

    what: str
    remedy: str


_UNPACK = "Extract the log from it, and import that: {} | adledger import /dev/stdin ..."
_BY_HAND = "Extract the log from it, and import that."
_MAGICS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive (or an Excel workbook)", _UNPACK.format("unzip -p FILE")),
    (b"PK\x05\x06", "an empty ZIP archive", "Name a file that holds a log."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _BY_HAND),
    (b"Rar!", "a RAR archive", _BY_HAND),
    (b"\x04\x22\x4d\x18", "compressed by lz4", _UNPACK.format("lz4 -dc FILE")),
    (b"\xff\x06\x00\x00sNaPpY", "compressed by snappy", "Decompress it first; gzip, bzip2, xz and zstd are read as they are."),
    (b"\x1f\x9d", "compressed by compress (.Z)", _UNPACK.format("zcat FILE")),
    (b"]\x00\x00", "compressed by lzma (.lzma)", _UNPACK.format("xz -dc FILE")),
    (b"PAR1", "a Parquet file", "Write it as JSON lines in the wire format."),
    (b"Obj\x01", "an Avro file", "Write it as JSON lines in the wire format."),
    (b"ORC", "an ORC file", "Write it as JSON lines in the wire format."),
    (b"ARROW1", "an Arrow file", "Write it as JSON lines in the wire format."),
    (b"SQLite format 3\x00", "an SQLite database", "Write its rows as JSON lines in the wire format."),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Save it as CSV, with times as they were in the original export."),
    (b"%PDF", "a PDF document", "Name a file that holds a log."),
    (b"\x7fELF", "a program", "Name a file that holds a log."),
    (b"<?xml", "an XML document", "Name a file that holds a log."),
    (b"<!doctype", "a web page (a download that failed?)", "Look at its text, and fetch the log again."),
    (b"<html", "a web page (a download that failed?)", "Look at its text, and fetch the log again."),
)  # fmt: skip

_BOMS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\x00\x00", "UTF-32LE"),
    (b"\x00\x00\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)


def foreign(head: bytes) -> Foreign | None:
    """Return what a file is by its first (decompressed) bytes, or None if it may be lines of text."""
    start = head.lstrip()[:16].lower()
    for magic, what, remedy in _MAGICS:
        if head.startswith(magic) or (magic.startswith(b"<") and start.startswith(magic)):
            return Foreign(what, remedy)
    if head[257:262] == b"ustar":
        return Foreign("a tar archive", _UNPACK.format("tar -xOf FILE"))
    encoding = _wide_encoding(head)
    if encoding is not None:
        return Foreign(
            f"text in {encoding}",
            f"Convert it to UTF-8: iconv -f {encoding} -t UTF-8 FILE | adledger import /dev/stdin ...",
        )
    return None


def _wide_encoding(head: bytes) -> str | None:
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if (
        len(head) < _UTF16_BYTES_MIN
        or max(even, odd) < _NUL_SHARE_UTF16 * len(head)
        or min(even, odd) * 4 > max(even, odd)
    ):
        return None
    return "UTF-16BE" if even > odd else "UTF-16LE"
