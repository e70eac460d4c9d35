"""The log: the interface that lanes use, its record format, and the implementations."""
