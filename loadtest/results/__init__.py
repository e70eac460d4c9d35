"""The run folder: what a load test writes, and what reports, comparisons and `verify` read."""
