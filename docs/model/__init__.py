"""The lane protocol as a model that is searched exhaustively: `make model`, docs/exactly-once.md."""
