"""ClickHouse as a lane uses it: the Protocol and its implementations."""

if __name__ != "adledger.sinks":
    raise ImportError("this package is adledger.sinks; it is not importable as sinks")
