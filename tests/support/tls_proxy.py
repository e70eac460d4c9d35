"""A TLS proxy before a plain-text server, such as our embedded ClickHouse in tests."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.certificates import Certificate, CertificateAuthority

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536


@contextmanager
def tls_before(
    port: int, certificate: Certificate, *, clients: CertificateAuthority | None = None
) -> Iterator[int]:
    """Yield a port that speaks TLS and passes everything to `port`; with `clients` only for certificates of this CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.pem)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # refused handshakes are what tests make
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def pass_on(reader, writer):
        with suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection(HOST, port)
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))

    async def end(server):
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = call(asyncio.start_server(pass_on, HOST, 0, ssl=context))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        call(end(server))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes until either side closes."""
    try:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()
