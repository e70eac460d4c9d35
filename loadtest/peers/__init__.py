"""The same job by other means: Faust, Quix Streams, bare consumer loops, Flink; measured and checked side by side."""
