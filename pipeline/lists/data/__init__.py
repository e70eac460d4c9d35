"""Lists as data, each with its source, date and licence."""
