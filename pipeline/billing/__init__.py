"""Billing: closing periods by the ledger's watermarks, their final sums, and the adjustments that follow."""
