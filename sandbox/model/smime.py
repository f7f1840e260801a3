"""An S/MIME certificate with its key: what is written down of it, and whether it can serve."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sandbox.model.schema import Reader

_FINGERPRINT = re.compile(r"[0-9A-F]{64}\Z")


@dataclass(frozen=True)
class Smime:
    """The mailbox's certificate: SHA-256, its last day, and who is trusted to vouch for such."""

    fingerprint: str
    expires: str
    ca: tuple[str, ...] = ()


@dataclass(frozen=True)
class CertificateFacts:
    """What a certificate says; `pem` is the certificate itself, without the key."""

    fingerprint: str
    subject: str
    issuer: str
    addresses: tuple[str, ...]
    begins: datetime
    ends: datetime
    signs: bool
    encrypts: bool
    for_mail: bool
    pem: str


def certificate_problem(facts: CertificateFacts, address: str, now: datetime) -> str | None:
    """Why the certificate cannot serve this address; None when it can."""
    if address.lower() not in facts.addresses:
        named = ", ".join(facts.addresses) or "no address"
        return f"is for {named}, and not for {address}"
    if facts.ends <= now:
        return f"expired on {facts.ends.date().isoformat()}"
    if facts.begins > now:
        return f"is valid only from {facts.begins.date().isoformat()}"
    if not facts.for_mail:
        return "is not meant for mail (extended key usage)"
    if not (facts.signs or facts.encrypts):
        return "may neither sign nor encrypt (key usage)"
    return None


def certificate_lacks(facts: CertificateFacts) -> str:
    """What it cannot do, as a sentence for a warning; empty: it can do all."""
    if not facts.signs:
        return "The certificate may encrypt, but not sign (key usage)."
    if not facts.encrypts:
        return "The certificate may sign, but nobody can encrypt to it (key usage)."
    return ""


def ends_at(smime: Smime) -> int:
    """The last day as a UNIX time."""
    day = date.fromisoformat(smime.expires)
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def read_smime(reader: Reader) -> Smime | None:
    """The table `smime` of a profile; problems gather in the reader."""
    fingerprint = reader.parsed("fingerprint", _parse_fingerprint, "")
    expires = reader.parsed("expires", _parse_day, "")
    authorities = reader.get("ca", list, [])
    if not all(isinstance(pem, str) and "BEGIN CERTIFICATE" in pem for pem in authorities):
        reader.problem("ca", "is not a list of certificates in PEM form")
    if bool(fingerprint) != bool(expires):
        reader.problem("expires" if fingerprint else "fingerprint", "is missing")
    reader.finish()
    return Smime(fingerprint, expires, tuple(map(str, authorities))) if fingerprint else None


def write_smime(smime: Smime | None) -> dict[str, Any]:
    """As `read_smime` understands it; empty without a certificate."""
    if smime is None:
        return {}
    written = {"fingerprint": smime.fingerprint, "expires": smime.expires, "ca": list(smime.ca)}
    return {"smime": written}


def _parse_fingerprint(text: str) -> str:
    found = re.sub(r"[\s:]+", "", text).upper()
    if not _FINGERPRINT.match(found):
        raise ValueError(f"{text!r} is not a SHA-256 fingerprint (64 hexadecimal digits)")
    return found


def _parse_day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is not a date such as 2027-12-31") from None
