"""Pages: what a worker shows over HTTP."""
