"""Profiles: what a load test is asked to do. Load, traffic, thresholds, settings and faults, as TOML files."""
