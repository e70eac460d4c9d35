"""The server: an engine, its running queries, and the two ports for clients."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from adledger.pipeline.errors import SinkError
from adledger.sinks.embedded.engine import Engine
from adledger.sinks.embedded.errors import ServerError
from adledger.sinks.embedded.http_client import HttpClient
from adledger.sinks.embedded.native import NativeClient
from adledger.sinks.embedded.running import Register
from adledger.sinks.embedded.watch import QueryWatch

HOST = "127.0.0.1"
BACKLOG = 128
FINISH_SECONDS_MAX = 10
"""Time for running queries to end when the server stops, before they are killed."""

ACCEPT_AGAIN_SECONDS = 0.2

ANSWER_SECONDS_MAX = 2
"""Time for clients to receive answers that are ready."""

STOP_SECONDS_MAX = 25
STUCK_EXIT_CODE = 75


class ServedClient(Protocol):
    """A client's connection."""

    def serve(self) -> None:
        """Return when the connection is closed."""

    def interrupt(self) -> None:
        """Make `serve` return once it has answered the request that it has read; from any thread."""

    def close(self) -> None:
        """Make `serve` return now; from any thread."""


class Port:
    """A listening port; each connection has its own thread."""

    def __init__(
        self, sock: socket.socket, name: str, client: Callable[[socket.socket], ServedClient]
    ) -> None:
        self.number = int(sock.getsockname()[1])
        self._socket = sock
        self._client = client
        self._clients: dict[ServedClient, threading.Thread] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._name = name
        self._thread = threading.Thread(target=self._accept, name=f"accept-{name}", daemon=True)

    def open(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def close(self) -> None:
        """Accept no more connections."""
        self._closing = True
        with suppress(OSError):
            socket.create_connection((HOST, self.number)).close()  # wakes the thread
        self._thread.join()
        self._socket.close()

    def close_clients(self) -> None:
        """Close the open connections once their answers are sent; return when their threads have ended."""
        with self._lock:
            clients = dict(self._clients)
        for client in clients:
            client.interrupt()
        until = time.monotonic() + ANSWER_SECONDS_MAX
        for client, thread in clients.items():
            thread.join(max(0.0, until - time.monotonic()))
            client.close()
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError as e:  # out of file descriptors, say
                print(f"embedded ClickHouse: {self._name} port: {e}", file=sys.stderr)  # noqa: T201
                time.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            if self._closing:
                sock.close()
                return
            client = self._client(sock)
            thread = threading.Thread(target=self._serve, args=(client,), name=self._name, daemon=True)
            with self._lock:
                self._clients[client] = thread
            thread.start()

    def _serve(self, client: ServedClient) -> None:
        try:
            client.serve()
        finally:
            with self._lock:
                del self._clients[client]


class LoopbackServer:
    """ClickHouse on a folder, on the loopback. Raises SinkError where a port is taken."""

    def __init__(self, directory: Path, port: int, http_port: int) -> None:
        native, http = listen(port, "--port"), listen(http_port, "--http-port")
        self._engine = _engine(directory)
        self._register = Register()
        self._watch = QueryWatch(self._register, self._engine.session())
        self._http = Port(http, "http", lambda sock: HttpClient(sock, self._engine, self._register))
        self._native = Port(
            native, "native", lambda sock: NativeClient(sock, self._engine, self._register, self.http_port)
        )
        self.port, self.http_port = self._native.number, self._http.number

    def start(self) -> None:
        """Begin to answer."""
        self._watch.start()
        self._native.open()
        self._http.open()

    def stop(self) -> None:
        """Wait for running queries, at most `FINISH_SECONDS_MAX`, and close everything.

        A query that can't be killed does not keep the process alive: after `STOP_SECONDS_MAX` it exits. That leaves the data
        as after a crash, which the engine is designed for.
        """
        patience = threading.Timer(STOP_SECONDS_MAX, os._exit, (STUCK_EXIT_CODE,))
        patience.daemon = True
        patience.start()
        self._native.close()
        self._http.close()
        until = time.monotonic() + FINISH_SECONDS_MAX
        for query in self._register.all():
            if query.in_engine:
                query.ended.wait(max(0.0, until - time.monotonic()))
        self._register.kill(query.query_id for query in self._register.all())
        self._native.close_clients()
        self._http.close_clients()
        self._watch.stop()
        self._engine.close()
        patience.cancel()


def _engine(directory: Path) -> Engine:
    try:
        return Engine(directory)
    except ServerError as e:
        raise SinkError(
            f"the embedded ClickHouse can't open the data in {directory}: {e.message}",
            remedy="the disk may be full, or the data damaged or from a later release: free space, or name another folder",
        ) from None


def listen(port: int, option: str) -> socket.socket:
    """Return a socket that listens on the loopback. Raises SinkError where the port is taken or not allowed."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as e:
        sock.close()
        raise SinkError(
            f"the embedded ClickHouse can't listen on {HOST}:{port}: {getattr(e, 'strerror', None) or e}",
            remedy=f"end the process that listens there, or choose another port: {option} PORT (0 takes a free one)",
        ) from None
    return sock
