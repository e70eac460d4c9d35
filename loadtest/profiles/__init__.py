"""Profiles: the load, traffic, thresholds, settings and faults of a load test, as TOML files."""
