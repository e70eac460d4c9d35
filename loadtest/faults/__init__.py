"""Harm on purpose, for tests of what the pipeline does then."""
