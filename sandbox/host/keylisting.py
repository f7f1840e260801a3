"""GnuPG's listing of a key, read into its parts (GnuPG: doc/DETAILS)."""

from __future__ import annotations

import re

from sandbox.model.keydetails import HERE, NOWHERE, OFFLINE, VALID, Details, Part, UserId, uses_of

_STATES = {"e": "expired", "r": "revoked", "d": "unusable", "i": "unusable", "n": "unusable"}
# Numbers of algorithms that have no curve (RFC 9580, 9.1).
_NAMES = {"1": "rsa", "2": "rsa", "3": "rsa", "16": "elg", "17": "dsa"}


# gpg's options for what `read_listing` reads (gnupg, doc/DETAILS).
LISTING = ("--with-colons", "--with-subkey-fingerprint", "--fixed-list-mode")


def read_listing(listing: bytes) -> dict[str, Details]:
    """Each key of `--with-colons --list-keys` or `--list-secret-keys`, by its fingerprint."""
    found: dict[str, Details] = {}
    parts: list[Part] = []
    user_ids: list[UserId] = []
    fields: list[str] = []
    for row in (line.split(b":") for line in listing.splitlines()):
        kind = row[0]
        if kind in (b"pub", b"sec"):
            parts, user_ids = [], []
        if kind in (b"pub", b"sec", b"sub", b"ssb"):
            fields = [unescaped(field) for field in row]
        elif kind == b"fpr" and fields:
            parts.append(_part(fields, unescaped(row[9])))
            fields = []
        elif kind == b"uid":
            user_ids.append(UserId(unescaped(row[9]), _state(unescaped(row[1]))))
        if parts:
            found[parts[0].fingerprint] = Details(tuple(user_ids), tuple(parts))
    return found


def _part(fields: list[str], fingerprint: str) -> Part:
    fields = [*fields, *[""] * 17]
    token = fields[14]
    known = {"+": HERE, "#": OFFLINE, "": HERE if fields[0] in ("sec", "ssb") else NOWHERE}
    return Part(
        fingerprint=fingerprint,
        algorithm=fields[16] or f"{_NAMES.get(fields[3], f'algorithm {fields[3]}, ')}{fields[2]}",
        uses=uses_of(fields[11]),
        created=int(fields[5] or 0),
        expires=int(fields[6]) if fields[6] else None,
        state=_state(fields[1]),
        secret=known.get(token, token),
    )


def _state(letter: str) -> str:
    return _STATES.get(letter, VALID)


def unescaped(field: bytes) -> str:
    r"""A field without its \xNN; what is not UTF-8 is replaced."""
    raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes([int(match[1], 16)]), field)
    return raw.decode(errors="replace")
