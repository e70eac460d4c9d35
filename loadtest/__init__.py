"""Traffic whose truth is known: the generator, what must come of it, and the check that it did."""

if __name__ != "adledger.loadtest":
    raise ImportError("this package is adledger.loadtest; it is not importable as loadtest")
