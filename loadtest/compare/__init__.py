"""Comparing runs with runs: what changed and what is noise. Tables are compared by adledger.loadtest.verification."""
