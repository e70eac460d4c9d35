"""Reading the ledger: totals, status, replays, and the check that every table agrees with it."""
