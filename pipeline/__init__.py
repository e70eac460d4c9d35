"""adledger: the pipeline from the log to ClickHouse."""

if __name__ != "adledger.pipeline":
    raise ImportError("this package is adledger.pipeline; it is not importable as pipeline")
