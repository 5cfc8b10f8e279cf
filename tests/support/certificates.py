"""Certificates of servers, and the authority that signs them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority that signs certificates of servers."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(name, name, key, key, valid_until=tomorrow(), is_ca=True)
        return cls(name, key, certificate)

    def write(self, folder: Path) -> Path:
        """Write the authority's own certificate, which clients trust, and return its file."""
        path = folder / f"{self.name}.crt"
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def server_context(self, host: str, folder: Path) -> ssl.SSLContext:
        """Return the context of a server in this process with a valid certificate.

        Args:
            host: name of the server.
            folder: receives the files of the certificate, which a context reads.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = (folder / f"{self.name}.{host}.{kind}" for kind in ("crt", "key"))
        contents = self.server_files(host, valid_until=tomorrow())
        for path, content in zip((certificate, key), contents, strict=True):
            path.write_bytes(content)
        context.load_cert_chain(certificate, key)
        return context

    def server_files(self, host: str, *, valid_until: datetime) -> tuple[bytes, bytes]:
        """Return a server's certificate and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(host, self.name, key, self.key, valid_until=valid_until, is_ca=False)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(pem), private


def tomorrow() -> datetime:
    """Return the time in a day, UTC."""
    return datetime.now(UTC) + DAY


def _signed(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    valid_until: datetime,
    is_ca: bool,
) -> x509.Certificate:
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer)
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_until - 3 * DAY)
        .not_valid_after(valid_until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
