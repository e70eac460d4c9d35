"""Importing files of events into a log: the formats, how a line becomes a record, and its log time."""

from adledger.pipeline.importing.formats import FORMATS
from adledger.pipeline.importing.run import ImportSummary, import_file, import_into

__all__ = ["FORMATS", "ImportSummary", "import_file", "import_into"]
