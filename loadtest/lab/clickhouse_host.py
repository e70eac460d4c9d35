"""The process that ClickHouse's own server runs in: `python clickhouse_host.py LIBRARY ARGUMENT...`.

It runs the library's main function, which is clickhouse-local's, and ends with it. It imports nothing of ours, so
that it starts at once and a crash in it is the server's.
"""

import ctypes
import sys


def main(library: str, arguments: list[str]) -> None:
    """Run clickhouse-local with arguments; returns when it ends."""
    encoded = [argument.encode() for argument in ["clickhouse-local", *arguments]]
    argv = (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)
    run = ctypes.CDLL(library).chdb_query_cmdline
    run.restype = ctypes.c_void_p
    run(len(encoded), argv)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
