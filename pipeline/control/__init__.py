"""The control path: what is condensed from batches, for people and machines that watch. Never per event."""
