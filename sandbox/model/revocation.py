"""Revocation certificates as files: disarmed, so that no import by mistake ends a key."""

from __future__ import annotations

_BEGIN = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_TEXT = b"""\
This is a revocation certificate of an OpenPGP key.

Whoever has it can declare the key dead, and nothing else. Applied and published, it cannot be
taken back. `mailbox keys revoke` uses it. Without mailbox: remove the colon before the dashes
below, `gpg --import` this file, and publish the key.

"""


def disarmed(certificate: bytes) -> bytes:
    """The certificate with words, and with a colon that keeps GnuPG from importing it."""
    return _TEXT + certificate.replace(_BEGIN, b":" + _BEGIN)


def armed(content: bytes) -> bytes:
    """The certificate in a file as GnuPG or `disarmed` writes it, to be imported."""
    return content.replace(b":" + _BEGIN, _BEGIN)
