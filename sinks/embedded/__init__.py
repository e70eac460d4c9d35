"""A ClickHouse server for demos and tests: chDB, the real engine in one process, behind the native protocol and HTTP."""
