"""The control path: what a few thousand messages a second drive, never events."""
