"""The contracts: the wire, the classes and reasons, the tables and their migrations."""

if __name__ != "adledger.schemas":
    raise ImportError("this package is adledger.schemas; it is not importable as schemas")
