"""Authentication with ClickHouse: its certificate, ours, the password; and why one of them was refused.

clickhouse-driver reports a failed connection only as text. So after a failure the port is tried once more, to find the
cause: a file, a certificate, or TLS where plain text is expected, or the reverse.
"""

import socket
import ssl
from typing import Any

from adledger.pipeline.addresses import ServerAddress, Tls
from adledger.pipeline.errors import SinkUnavailable

PROBE_SECONDS_MAX = 5
ALERT_SECONDS_MAX = 1.0
"""With TLS 1.3 a server checks our certificate after the handshake; we wait this long for its answer."""

_NO_PASSWORD = ""
"""Passed with keys, so that OpenSSL does not prompt on the terminal for a key's password."""

_NOT_YET, _EXPIRED = 9, 10
_CA_UNKNOWN = {18, 19, 20, 21}  # OpenSSL's X509_V_ERR_...: self-signed, no issuer here
_HOSTNAME = {62, 64}  # name, address


def driver_options(tls: Tls) -> dict[str, Any]:
    """Return clickhouse-driver's options for TLS."""
    files = {"ca_certs": tls.ca, "certfile": tls.certificate, "keyfile": tls.key}
    named = {name: str(path) for name, path in files.items() if path is not None}
    if tls.certificate is not None:
        named["keypass"] = _NO_PASSWORD
    if tls.server_name is not None:
        named["server_hostname"] = tls.server_name
    return {"verify": tls.verify, **named}


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a client. Raises SinkUnavailable naming a file that can't be used."""
    context = ssl.create_default_context()
    what = f"ca={tls.ca}"
    try:
        if tls.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(str(tls.ca))
        if tls.certificate is not None:
            what = f"certificate={tls.certificate}" + (f", key={tls.key}" if tls.key else "")
            context.load_cert_chain(tls.certificate, tls.key, password=_NO_PASSWORD)
    except OSError as error:  # an SSLError is one too
        why = error.strerror
        if isinstance(error, ssl.SSLError):  # OpenSSL has no reason for a key with a password
            why = error.reason or "not PEM, or its key is missing, another's, or has a password"
        raise SinkUnavailable(
            f"in ClickHouse's address, {what} can't be used: {why}",
            refused=True,
            remedy="name PEM files that this user may read: a CA's certificate; a certificate and its key, which has "
            "no password",
        ) from None
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def login_password(address: ServerAddress) -> str:
    """Return the password, from its file if one is named. Raises SinkUnavailable if that can't be read."""
    if address.password_file is None:
        return address.password
    try:
        return address.password_file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SinkUnavailable(
            f"in ClickHouse's address, password_file={address.password_file} can't be read: {why}",
            refused=True,
            remedy="name a file that this user may read, with the password alone in it",
        ) from None


def probed(address: ServerAddress, port: int) -> SinkUnavailable | None:
    """Return why connections to this port of ClickHouse fail; None if that can't be determined from outside."""
    return _probed_secure(address, port) if address.secure else _probed_plain(address, port)


def _probed_secure(address: ServerAddress, port: int) -> SinkUnavailable | None:
    where = f"{address.host}:{port}"
    try:
        context = tls_context(address.tls)
        with socket.create_connection((address.host, port), PROBE_SECONDS_MAX) as plain:
            name = address.tls.server_name or address.host
            with context.wrap_socket(plain, server_hostname=name) as secure:
                if _ends(secure):
                    return _wants_certificate(where, "it ended the connection after the handshake")
    except SinkUnavailable as error:
        return error
    except ssl.SSLError as error:
        return handshake_failure(error, where)
    except (ConnectionResetError, BrokenPipeError):
        return _no_tls(where, "the connection was closed")
    except OSError:
        pass  # nothing listens, which the original failure says already
    return None


def _probed_plain(address: ServerAddress, port: int) -> SinkUnavailable | None:
    """Check whether the port speaks TLS; no certificate is requested."""
    unverified = tls_context(Tls(verify=False))
    try:
        with (
            socket.create_connection((address.host, port), PROBE_SECONDS_MAX) as plain,
            unverified.wrap_socket(plain),
        ):
            pass
    except OSError:
        return None
    return SinkUnavailable(
        f"ClickHouse at {address.host}:{port} expects TLS, and the address has none",
        refused=True,
        remedy="set secure=1 in the address (and ca=FILE where its CA is your own), or name the port without TLS",
    )


def _ends(secure: ssl.SSLSocket) -> bool:
    """Return whether the server closes the connection before it sends anything. Raises SSLError with its alert."""
    secure.settimeout(ALERT_SECONDS_MAX)
    try:
        return not secure.recv(1)
    except TimeoutError:
        return False


def handshake_failure(error: ssl.SSLError, where: str) -> SinkUnavailable:
    """Return what the failure of a handshake with HOST:PORT means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message, remedy = _certificate(error)
        return SinkUnavailable(f"ClickHouse at {where}: {message}", refused=True, remedy=remedy)
    reason = (error.reason or str(error)).upper()
    if "EXPIRED" in reason:
        return SinkUnavailable(
            f"ClickHouse at {where}: the server says that this client's certificate has expired",
            refused=True,
            remedy="renew the file that the address names: certificate=FILE",
        )
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "HANDSHAKE" in reason):
        return _wants_certificate(where, reason)
    return _no_tls(where, reason)


def _wants_certificate(where: str, why: str) -> SinkUnavailable:
    return SinkUnavailable(
        f"ClickHouse at {where}: the server requires a client certificate that it trusts ({why})",
        refused=True,
        remedy="name one that the server's CA signed, in the address: certificate=FILE&key=FILE",
    )


def _no_tls(where: str, reason: str) -> SinkUnavailable:
    return SinkUnavailable(
        f"ClickHouse at {where} does not speak TLS on this port ({reason})",
        refused=True,
        remedy="name the TLS port (9440, not 9000; for HTTP 8443, not 8123), or leave secure=1 out",
    )


def _certificate(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    if error.verify_code == _EXPIRED:
        return "the server's certificate has expired", "renew it on the server"
    if error.verify_code == _NOT_YET:
        return "the server's certificate is not valid yet", "check this machine's clock, and the certificate"
    if error.verify_code in _CA_UNKNOWN:
        return (
            f"the server's certificate is signed by a CA that is not trusted here ({error.verify_message})",
            "name the PEM file of that CA in the address: ca=FILE",
        )
    if error.verify_code in _HOSTNAME:
        return (
            f"the server's certificate is for another name ({error.verify_message})",
            "name the server as its certificate does, or set server_name=NAME in the address",
        )
    return f"the server's certificate is refused: {error.verify_message}", "fix it on the server"
