"""Retention: whole days of old rows are dropped, by the lanes' ledgered clocks and never by the server's."""
