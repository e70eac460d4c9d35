"""A client over HTTP."""
import socket
from sinks.embedded.engine import Engine
from sinks.embedded.running import Register
class HttpClient:
    def __init__(self, sock: socket.socket, engine: Engine, register: Register) -> None:
        self._s = sock
    def serve(self) -> None:
        self._s.close()
    def close(self) -> None:
        pass
