"""Chaos on the real thing: a broker, ClickHouse and workers that are hurt while traffic of known truth goes through."""
