"""Certificates of mail servers: how they are verified, shown, and what is wrong with one."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass

from cryptography import x509

from sandbox.model.endpoints import Endpoint
from sandbox.model.errors import Exit, MailboxError

# X509_V_ERR_* of OpenSSL's x509_vfy.h
_NOT_YET_VALID = 9
_EXPIRED = 10
_NAME_MISMATCH = 62


@dataclass(frozen=True)
class CertificateFacts:
    """A server's certificate as people compare it; times in ISO 8601, UTC."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: str
    not_after: str
    sha256: str
    tls_version: str = ""


def context_for(ca_pem: str | None) -> ssl.SSLContext:
    """Verify against the system's authorities, or only against the given ones.

    Raises:
        MailboxError: `ca-invalid`.
    """
    try:
        if ca_pem is not None and not ca_pem.strip():
            raise ValueError("an empty text would silently mean the system's authorities")
        context = ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, ValueError):
        raise MailboxError(
            "The certificate given with --ca cannot be read.",
            resolution="Give a file with certificates in PEM form (-----BEGIN CERTIFICATE-----).",
            code="ca-invalid",
            exit_code=Exit.USAGE,
        ) from None
    # the same on every Python: 3.13 became stricter than mail clients are with private authorities
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def context_to_look() -> ssl.SSLContext:
    """Verifies nothing: only to show a refused certificate, never to send a login."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def one_line(untrusted: str, limit: int = 200) -> str:
    """Text of a stranger, safe to print: one line without control characters."""
    return "".join(char if char.isprintable() else " " for char in untrusted[:limit]).strip()


def read_certificate(der: bytes, tls_version: str | None) -> CertificateFacts:
    """The facts of a certificate; what cannot be read in it is left empty."""
    digest = hashlib.sha256(der).hexdigest().upper()
    sha256 = ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
    try:
        found = x509.load_der_x509_certificate(der)
        return CertificateFacts(
            subject=one_line(found.subject.rfc4514_string()),
            issuer=one_line(found.issuer.rfc4514_string()),
            names=_names(found),
            not_before=found.not_valid_before_utc.isoformat(),
            not_after=found.not_valid_after_utc.isoformat(),
            sha256=sha256,
            tls_version=tls_version or "",
        )
    except ValueError:
        return CertificateFacts("", "", (), "", "", sha256, tls_version or "")


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(one_line(name) for name in extension.value.get_values_for_type(x509.DNSName)[:20])


def certificate_error(
    endpoint: Endpoint, error: ssl.SSLCertVerificationError, facts: CertificateFacts | None
) -> MailboxError:
    """What is wrong with a certificate, in one sentence, and the way out."""
    shown = _shown(facts)
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return _out_of_date(endpoint, error.verify_code, facts, shown)
    if error.verify_code == _NAME_MISMATCH:
        names = ", ".join(facts.names) if facts and facts.names else "no name at all"
        return _refused(
            f"The certificate of {endpoint} is not for {endpoint.host}, but for {names}.",
            shown,
            "Use the server's name that the certificate has, or ask the provider.",
            "certificate-name-mismatch",
        )
    issuer = facts.issuer if facts and facts.issuer else "an unknown issuer"
    return _refused(
        f"The certificate of {endpoint} is not trusted; its issuer is {issuer}.",
        f"{error.verify_message}\n{shown}".strip(),
        "If the server has a certificate authority of its own, get its certificate from the "
        "provider, compare it, and give it with --ca FILE.",
        "certificate-not-trusted",
    )


def _out_of_date(
    endpoint: Endpoint, code: int, facts: CertificateFacts | None, shown: str
) -> MailboxError:
    if code == _EXPIRED:
        state = f"expired on {facts.not_after[:10]}" if facts else "has expired"
    else:
        state = f"is valid only from {facts.not_before[:10]}" if facts else "is not valid yet"
    return _refused(
        f"The certificate of {endpoint} {state}.",
        shown,
        "Check this computer's clock; if it is right, the provider must renew the certificate.",
        "certificate-expired",
    )


def _shown(facts: CertificateFacts | None) -> str:
    if facts is None:
        return ""
    return (
        f"subject {facts.subject}\nissuer {facts.issuer}\n"
        f"valid until {facts.not_after}\nSHA-256 {facts.sha256}"
    )


def _refused(brief: str, details: str, resolution: str, code: str) -> MailboxError:
    return MailboxError(
        brief, details=details, resolution=resolution, code=code, exit_code=Exit.SERVER
    )
