"""Comparison benchmarks: the same job done by Faust, Quix Streams, Flink and bare consumer loops, measured and checked."""
