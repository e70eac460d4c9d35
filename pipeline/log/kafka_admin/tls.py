"""TLS to Kafka from PEM files: a context, or everything wrong with the files, found before any connection."""

import re
import ssl
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from adledger.pipeline.findings import Finding

CA, CERTIFICATE, KEY = "ssl.ca.location", "ssl.certificate.location", "ssl.key.location"
KEY_PASSWORD, HOSTNAME = "ssl.key.password", "ssl.endpoint.identification.algorithm"

_PEM_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_PEM_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED")
_JAVA_STORES = {".jks", ".p12", ".pfx", ".keystore", ".truststore"}


def tls_context(
    properties: Mapping[str, str], *, now: float | None = None
) -> tuple[ssl.SSLContext, list[Finding]]:
    """Return a client's TLS context for the ssl.* properties, and everything wrong with them.

    Without ssl.ca.location the system's CAs are trusted, with it only its own. The context is unusable where there are
    findings. `now` is in seconds since the epoch (default: the clock's).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    moment = time.time() if now is None else now
    return context, [
        *_trust(context, properties, moment),
        *_identity(context, properties, moment),
        *_hostname(context, properties),
    ]


def _trust(context: ssl.SSLContext, properties: Mapping[str, str], now: float) -> Iterator[Finding]:
    if CA not in properties:
        context.load_default_certs()
        return
    path = Path(properties[CA]).expanduser()
    try:
        if path.is_dir():
            context.load_verify_locations(capath=str(path))
            return
        pem = path.read_bytes()
        context.load_verify_locations(cafile=str(path))
    except OSError as error:
        yield _unusable(CA, path, error)
        return
    ends = [end for _, end in certificate_validities(pem)]
    if ends and max(ends) < now:
        yield Finding(
            f"kafka.{CA} = {path}: no CA certificate in it is valid any more, the last expired at {day(max(ends))}",
            "name the PEM file of the CA that signs the brokers' certificates now",
        )


def _identity(context: ssl.SSLContext, properties: Mapping[str, str], now: float) -> Iterator[Finding]:
    """Load the client's own certificate, where it has one (mTLS)."""
    if CERTIFICATE not in properties:
        for name in (KEY, KEY_PASSWORD):
            if name in properties:
                yield Finding(
                    f"kafka.{name} is set, and kafka.{CERTIFICATE} is not", f"set {CERTIFICATE} too"
                )
        return
    paths = {name: Path(properties[name]).expanduser() for name in (CERTIFICATE, KEY) if name in properties}
    pems: dict[str, bytes] = {}
    for name, path in paths.items():
        try:
            pems[name] = path.read_bytes()
        except OSError as error:
            yield _unusable(name, path, error)
    if len(pems) < len(paths):
        return
    yield from _expired(paths[CERTIFICATE], pems[CERTIFICATE], now)
    key_name = KEY if KEY in paths else CERTIFICATE
    yield from _load(
        context, paths[CERTIFICATE], key_name, paths[key_name], pems, properties.get(KEY_PASSWORD)
    )


def _load(
    context: ssl.SSLContext, certificate: Path, key_name: str, key: Path, pems: Mapping[str, bytes], password: str | None
) -> Iterator[Finding]:  # fmt: skip
    where = f"kafka.{key_name} = {key}"
    encrypted = _PEM_ENCRYPTED.search(pems[key_name]) is not None
    if not encrypted and not _PEM_KEY.search(pems[key_name]):
        yield Finding(f"{where}: no private key in it", f"name the PEM file of the key as {KEY}")
    elif encrypted and password is None:
        yield Finding(
            f"{where}: the private key is encrypted, and there is no password",
            f"set kafka.{KEY_PASSWORD}, kafka.{KEY_PASSWORD}.file or ADLEDGER_KAFKA_SSL_KEY_PASSWORD",
        )
    else:
        try:
            # A password is always passed: without one OpenSSL would prompt on the terminal.
            context.load_cert_chain(str(certificate), str(key), password or "")
        except (OSError, ValueError) as error:
            yield _not_loaded(where, certificate, error, encrypted=encrypted)


def _not_loaded(where: str, certificate: Path, error: Exception, *, encrypted: bool) -> Finding:
    reason = getattr(error, "reason", None) or ""
    if "MISMATCH" in reason:
        return Finding(
            f"{where}: not the key of the certificate in {certificate}",
            f"name a certificate and its own key ({CERTIFICATE}, {KEY})",
        )
    if encrypted:
        return Finding(
            f"{where}: the private key can't be decrypted", f"check kafka.{KEY_PASSWORD}: it is another key's"
        )
    return Finding(
        f"{where}: certificate and key can't be loaded ({reason or type(error).__name__})",
        f"name PEM files; check them with: openssl x509 -noout -text -in {certificate}",
    )


def _expired(path: Path, pem: bytes, now: float) -> Iterator[Finding]:
    for begin, end in certificate_validities(pem)[:1]:  # the client's own; its CAs' follow
        if end < now:
            yield Finding(
                f"kafka.{CERTIFICATE} = {path}: the client's certificate expired at {day(end)}",
                "renew it, and name the new PEM file",
            )
        elif begin > now:
            yield Finding(
                f"kafka.{CERTIFICATE} = {path}: the client's certificate is not valid before {day(begin)}",
                "check this machine's clock, or name the certificate that is valid now",
            )


def _hostname(context: ssl.SSLContext, properties: Mapping[str, str]) -> Iterator[Finding]:
    algorithm = properties.get(HOSTNAME, "https").lower()
    if algorithm in {"", "none"}:
        context.check_hostname = False
    elif algorithm != "https":
        yield Finding(
            f"kafka.{HOSTNAME} = {algorithm}: not known",
            'write https, or none (or "") where a broker\'s name is not that of its certificate',
        )


def _unusable(name: str, path: Path, error: OSError) -> Finding:
    if path.suffix.lower() in _JAVA_STORES and not isinstance(error, FileNotFoundError):
        return Finding(
            f"kafka.{name} = {path}: a Java key store, not PEM",
            f"convert it: keytool -importkeystore to PKCS12, then openssl pkcs12 -in {path} -out {path.stem}.pem",
        )
    if isinstance(error, FileNotFoundError):
        return Finding(f"kafka.{name} = {path}: there is no such file", "name a PEM file that exists")
    if isinstance(error, PermissionError):
        return Finding(f"kafka.{name} = {path}: may not be read", f"let this user read it: chmod u+r {path}")
    if isinstance(error, ssl.SSLError):
        return Finding(f"kafka.{name} = {path}: no certificate in PEM form in it", "name a PEM file")
    return Finding(
        f"kafka.{name} = {path}: can't be read ({error.strerror})", "name a PEM file that can be read"
    )


def certificate_validities(pem: bytes) -> list[tuple[float, float]]:
    """Return the validity (from, to; seconds since the epoch) of each certificate of a PEM file.

    Empty for a file that can't be parsed: OpenSSL, which loads the same file, reports the reason.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of serial numbers that some old CAs have
            certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []
    return [(c.not_valid_before_utc.timestamp(), c.not_valid_after_utc.timestamp()) for c in certificates]


def day(seconds: float) -> str:
    """Return a time as readable text."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
