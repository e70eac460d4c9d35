"""Faust's web server, with adledger's pages only, on a socket that is bound before anything starts."""

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
"""The most workers on one machine that find a port without being given one."""


def ports_to_try(port: int, *, chosen: bool) -> Sequence[int]:
    """Return the ports that a worker's pages may take: the configured one, else the default and those after it."""
    return (port,) if chosen or port == 0 else range(port, port + PORTS_TRIED_MAX)


class Pages(Web):  # type: ignore[misc] # faust has no types
    """The web server of the app. `bind` is called first, so that a port in use is a UsageError, not a traceback."""

    def __init__(self, app: Any, ports: Sequence[int]) -> None:
        """Use the first free one of `ports`; 0 is any free port. A port from Faust's own command line overrides them."""
        super().__init__(app)
        self._ports = ports
        self._socket: socket.socket | None = None

    def bind(self) -> str:
        """Bind a port and return the URL of the pages. Raises UsageError."""
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
                    f"cannot listen on the pages' address {host}:{port}: {error.strerror or error}",
                    remedy="another program may use it: --web-port 0 takes a free port, --without-web serves no pages",
                ) from None
            break
        assert self._socket is not None, "the last port is bound, or raises"
        url_host = f"[{host}]" if ":" in host else host
        return f"http://{url_host}:{self._socket.getsockname()[1]}/"

    def close(self) -> None:
        """Release the port if the server never started."""
        if self._socket is not None:
            self._socket.close()

    def _enabled_blueprints(self) -> list[Any]:
        return []  # Faust's own pages show tables and routers, which this app does not have

    def _new_transport_tcp(self) -> BaseSite:
        assert self._socket is not None, "bound before the start"
        return SockSite(self._runner, self._socket, backlog=BACKLOG)
