"""Comparing runs with runs: what changed, what is noise. Tables and the truth are adledger.loadtest.compare's."""
