"""The pages' port: the one that was set, or the first that is free."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types._env import WEB_PORT

from adledger.pipeline.errors import UsageError
from adledger.pipeline.settings import Settings
from adledger.pipeline.web.server import Pages, ports_to_try


def pages(ports: Any) -> Pages:
    made = Pages.__new__(Pages)
    made.app = SimpleNamespace(conf=SimpleNamespace(web_bind="127.0.0.1", web_port=WEB_PORT))
    made._ports, made._socket = ports, None
    return made


def test_a_port_that_was_set_is_the_only_one():
    """A worker with web_port set gets that port or an error; only the default goes on to the next."""
    assert ports_to_try(6066, chosen=True) == (6066,)
    assert ports_to_try(0, chosen=False) == (0,)
    assert list(ports_to_try(6066, chosen=False))[:3] == [6066, 6067, 6068]


def test_a_second_worker_takes_the_next_free_port():
    """Where the port is taken the next is tried, and the URL says which one it got."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        second = pages((port, other))
        assert second.bind() == f"http://127.0.0.1:{other}/"
        second.close()
        with pytest.raises(UsageError, match=f"cannot listen on the pages' address 127.0.0.1:{port}"):
            pages((port,)).bind()


def test_pages_listen_on_the_loopback_unless_told_otherwise():
    """Other machines reach the pages only where web_host opens them."""
    assert Settings.model_fields["web_host"].default == "127.0.0.1"
