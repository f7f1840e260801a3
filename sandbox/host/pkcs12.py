"""Certificates with their keys in PKCS#12 files: read, judged by their own words, locked anew."""

from __future__ import annotations

from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.host.servercert import one_line
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.smime import CertificateFacts
from sandbox.ports import Ask

MAX_FILE = 1024 * 1024
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_FOR_MAIL = {ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


def take(content: bytes, ask: Ask, passphrase: str) -> tuple[CertificateFacts, bytes]:
    """A certificate as it says of itself, and its file locked with `passphrase` instead.

    Raises:
        MailboxError: `smime-unusable`, `smime-passphrase-wrong`.
    """
    held = _unlocked(content, ask)
    facts = _facts(held)
    lock = serialization.BestAvailableEncryption(passphrase.encode())
    certificate = held.cert.certificate if held.cert else None
    others = [each.certificate for each in held.additional_certs]
    locked = pkcs12.serialize_key_and_certificates(
        _name(facts.fingerprint), _usable(held.key), certificate, others, lock
    )
    return facts, locked


def read(content: bytes, passphrase: str) -> CertificateFacts:
    """The facts of a file that `take` made; raises `smime-passphrase-wrong` when it is another."""
    try:
        return _facts(pkcs12.load_pkcs12(content, passphrase.encode()))
    except ValueError:
        raise _wrong() from None


def _name(fingerprint: str) -> bytes:
    """The name under which clients keep it."""
    return f"mailbox {fingerprint[:16]}".encode()


def _unlocked(content: bytes, ask: Ask) -> pkcs12.PKCS12KeyAndCertificates:
    if len(content) > MAX_FILE:
        raise _unusable(f"is larger than {MAX_FILE >> 10} KiB")
    if content[:1] != b"\x30":  # a DER sequence
        raise _unusable("is no PKCS#12 file (.p12, .pfx)")
    for passphrase in (None, b""):
        with suppress(ValueError, UnsupportedAlgorithm):
            return pkcs12.load_pkcs12(content, passphrase)
    try:
        return pkcs12.load_pkcs12(content, ask("the S/MIME certificate").encode())
    except UnsupportedAlgorithm:
        raise _unusable("is locked in a way that is not known here") from None
    except ValueError:
        raise _wrong() from None


def _facts(held: pkcs12.PKCS12KeyAndCertificates) -> CertificateFacts:
    if held.cert is None or held.key is None:
        raise _unusable("does not hold a certificate with its private key")
    _usable(held.key)
    certificate = held.cert.certificate
    try:
        return CertificateFacts(
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex().upper(),
            subject=one_line(certificate.subject.rfc4514_string()),
            issuer=one_line(certificate.issuer.rfc4514_string()),
            addresses=_addresses(certificate),
            begins=certificate.not_valid_before_utc,
            ends=certificate.not_valid_after_utc,
            signs=_allows(certificate, "digital_signature", "content_commitment"),
            encrypts=_allows(certificate, "key_encipherment", "key_agreement"),
            for_mail=_for_mail(certificate),
            pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        )
    except (ValueError, x509.DuplicateExtension):
        raise _unusable("holds a certificate that cannot be read") from None


def _usable(key: object) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """A key that mail clients take (NSS)."""
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    raise _unusable("holds a key that mail clients do not take (RSA from 2048 bits, or NIST P)")


def _addresses(certificate: x509.Certificate) -> tuple[str, ...]:
    found: list[str] = []
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += names.get_values_for_type(x509.RFC822Name)
    attributes = certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
    found += [str(each.value) for each in attributes]
    return tuple(dict.fromkeys(one_line(each).lower() for each in found))


def _allows(certificate: x509.Certificate, *uses: str) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return any(getattr(usage, use) for use in uses)


def _for_mail(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool(_FOR_MAIL & set(usage))


def _unusable(reason: str) -> MailboxError:
    return MailboxError(
        f"The file {reason}; nothing was changed.",
        resolution="Export the certificate together with its private key, as PKCS#12 (.p12).",
        code="smime-unusable",
        exit_code=Exit.KEYS,
    )


def _wrong() -> MailboxError:
    return MailboxError(
        "That is not the passphrase of the S/MIME certificate; nothing was changed.",
        resolution="Try again.",
        code="smime-passphrase-wrong",
        exit_code=Exit.KEYS,
    )
