"""S/MIME for the demonstration: an authority, people's certificates, signed and encrypted mail."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
_LIFE = timedelta(days=30)


class SmimeAuthority:
    """Issues certificates for mail."""

    def __init__(self, name: str = "Mail certificates of partner.test") -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key(), _LIFE)
        basic = x509.BasicConstraints(ca=True, path_length=0)
        signed = builder.add_extension(basic, critical=True)
        signed = signed.add_extension(_usage(signs_certificates=True), critical=True)
        self.certificate = signed.sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> str:
        """The certificate to trust."""
        return self.certificate.public_bytes(PEM).decode()

    def issue(
        self,
        address: str,
        *,
        life: timedelta = _LIFE,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ) -> SmimePerson:
        """A certificate for an address, with a new key."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Person {address}")])
        names = x509.SubjectAlternativeName([x509.RFC822Name(address)])
        certificate = (
            self._builder(subject, key.public_key(), life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return SmimePerson(address, key, certificate, self.certificate)

    def _builder(
        self, subject: x509.Name, key: rsa.RSAPublicKey, life: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + life) - timedelta(days=1))
            .not_valid_after(now + life)
        )


@dataclass(frozen=True)
class SmimePerson:
    """Somebody with a certificate."""

    address: str
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    authority: x509.Certificate

    def pkcs12(self, passphrase: str) -> bytes:
        """Certificate, key and authority, as a provider hands them out."""
        lock = serialization.BestAvailableEncryption(passphrase.encode())
        return pkcs12.serialize_key_and_certificates(
            b"from the provider", self.key, self.certificate, [self.authority], lock
        )

    def letter(
        self, to: str, subject: str, text: str, for_whom: SmimePerson | None = None
    ) -> bytes:
        """A signed mail; with `for_whom` encrypted to that person, too."""
        inner = f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n".encode()
        with tempfile.TemporaryDirectory() as folder:
            own = self.files(Path(folder))
            mail = _openssl("-sign", "-md", "sha256", "-binary", *own, data=inner)
            if for_whom is not None:
                pem = Path(folder) / "for.pem"
                pem.write_bytes(for_whom.certificate.public_bytes(PEM))
                mail = _openssl("-encrypt", "-binary", "-aes256", str(pem), data=mail)
        # Thunderbird compares the date with the time of the signature.
        date = format_datetime(datetime.now(UTC))
        names = f"From: {self.address}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {date}\r\n"
        head = names.encode()
        return head + mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def files(self, folder: Path) -> list[str]:
        """Certificate and key as OpenSSL wants to be told them."""
        certificate, key = folder / "own.pem", folder / "own.key"
        certificate.write_bytes(self.certificate.public_bytes(PEM))
        pkcs8, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key.write_bytes(self.key.private_bytes(PEM, pkcs8, none))
        return ["-signer", str(certificate), "-inkey", str(key)]

    def read(self, message: bytes) -> bytes:
        """What a mail encrypted to this person holds."""
        with tempfile.TemporaryDirectory() as folder:
            _, certificate, *key = self.files(Path(folder))
            return _openssl("-decrypt", "-recip", certificate, *key, data=message)


def _openssl(*arguments: str, data: bytes) -> bytes:
    command = ["openssl", "cms", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def verified(message: bytes, authorities: Sequence[str]) -> bytes | None:
    """The content of a signed mail whose signature OpenSSL finds good; None otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        trusted = Path(folder) / "ca.pem"
        trusted.write_text("".join(authorities))
        command = ["openssl", "cms", "-verify", "-CAfile", str(trusted)]
        done = subprocess.run(command, input=message, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
