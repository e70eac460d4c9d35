"""Tests of the whole pipeline: generated traffic, its ground truth, load tests, chaos and benchmarks."""

if __name__ != "adledger.loadtest":
    raise ImportError("this package is adledger.loadtest; it is not importable as loadtest")
