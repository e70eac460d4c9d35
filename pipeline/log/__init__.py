"""The log: what a lane asks of it, its record format, and the logs that implement it."""
