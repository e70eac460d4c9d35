"""adledger: the pipeline from the log to ClickHouse."""

__version__ = "0.1.0"
