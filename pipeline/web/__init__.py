"""A worker's pages over HTTP."""
