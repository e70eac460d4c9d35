"""Retention: whole days of old rows are dropped, by the lanes' ledgered watermarks and never by the server's clock."""
