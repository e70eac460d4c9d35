"""The log in a folder: append-only segments, a folder a partition, one writer, one consumer a group at a time."""

from adledger.pipeline.log.files.manifest import Manifest, read_manifest
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.files.writer import FilesLogWriter

__all__ = ["FilesLogWriter", "FilesSource", "Manifest", "read_manifest"]
