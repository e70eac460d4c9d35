"""The log in a folder: append-only segments, a folder per partition, one writer, one consumer per group at a time."""

from adledger.pipeline.log.files.manifest import Manifest, read_manifest
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.files.writer import FilesLogWriter

__all__ = ["FilesLogWriter", "FilesSource", "Manifest", "read_manifest"]
