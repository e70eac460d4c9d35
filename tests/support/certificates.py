"""Certificates made for one test: a CA, and what it signs."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate (with its chain) and of its key, and one file of both."""

    chain: Path
    key: Path
    both: Path


class CertificateAuthority:
    """A CA with its certificate in a PEM file."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA(organization_name=name)
        self.pem = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.pem))

    def issue(
        self, *names: str, file: str = "host", expired: bool = False, password: str | None = None
    ) -> Certificate:
        """Write a certificate for host names or addresses; an expired one ended yesterday."""
        now = datetime.now(UTC)
        made = self._ca.issue_cert(
            *names,
            common_name=names[0],
            not_before=now - timedelta(days=30),
            not_after=now - timedelta(days=1) if expired else now + timedelta(days=30),
            key_type=trustme.KeyType.RSA,  # Java's PEM reader knows it in every release
        )
        chain, key, both = (self._folder / f"{file}{end}" for end in ("-chain.pem", "-key.pem", ".pem"))
        chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems) + self._ca.cert_pem.bytes())
        private = load_pem_private_key(made.private_key_pem.bytes(), None)
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        both.write_bytes(key.read_bytes() + chain.read_bytes())
        return Certificate(chain, key, both)
