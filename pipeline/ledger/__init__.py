"""The ledger read by people: totals, and the check that every table says what it says."""
