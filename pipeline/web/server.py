"""Faust's web server, with our pages only, on a socket that is bound before anything starts."""

import errno
import socket
from collections.abc import Sequence
from typing import Any

from aiohttp.web import BaseSite, SockSite
from faust.types._env import WEB_PORT
from faust.web.drivers.aiohttp import Web

from adledger.pipeline.errors import UsageError

BACKLOG = 128
PORTS_TRIED_MAX = 100
"""Workers on one machine that need not be told a port."""


def ports_to_try(port: int, *, chosen: bool) -> Sequence[int]:
    """Return the ports that a worker's pages may take: the one that was chosen, else the default and those after it."""
    return (port,) if chosen or port == 0 else range(port, port + PORTS_TRIED_MAX)


class Pages(Web):  # type: ignore[misc] # faust has no types
    """The web server of the app. `bind` comes first, so that a port that is taken is an error for people."""

    def __init__(self, app: Any, ports: Sequence[int]) -> None:
        """Take the first free one of `ports`; 0 is any. A port given to Faust's own command line wins."""
        super().__init__(app)
        self._ports = ports
        self._socket: socket.socket | None = None

    def bind(self) -> str:
        """Take a port and return where the pages are, as a URL. Raises UsageError."""
        conf = self.app.conf
        host, ports = conf.web_bind, (conf.web_port,) if conf.web_port != WEB_PORT else self._ports
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for port in ports:
            try:
                self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port != ports[-1]:
                    continue
                raise UsageError(
                    f"the pages' address {host}:{port} can't be taken: {error.strerror or error}",
                    remedy="another program may have it: --web-port 0 takes a free one, --without-web goes without",
                ) from None
            break
        assert self._socket is not None, "the last port is taken, or raises"
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._socket.getsockname()[1]}/"

    def close(self) -> None:
        """Give the port back, where the server never came to it."""
        if self._socket is not None:
            self._socket.close()

    def _enabled_blueprints(self) -> list[Any]:
        return []  # Faust's own pages are of tables and routers, which we have none of

    def _new_transport_tcp(self) -> BaseSite:
        assert self._socket is not None, "bound before the start"
        return SockSite(self._runner, self._socket, backlog=BACKLOG)
