"""A ClickHouse server for demos and tests: chDB, the real engine in-process, behind the native protocol and HTTP."""
