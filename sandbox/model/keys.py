"""OpenPGP keys as they matter to a mailbox."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

_ADDRESS = re.compile(r"<([^<>@\s]+@[^<>@\s]+)>|^([^<>@\s]+@[^<>@\s]+)$")


@dataclass(frozen=True)
class Key:
    """A key: `capabilities` as GnuPG writes them (doc/DETAILS field 12; upper case: usable now)."""

    fingerprint: str
    user_ids: tuple[str, ...]
    addresses: tuple[str, ...]
    capabilities: str
    validity: str
    expires: int | None
    secret: bool = False


def key_problem(key: Key, *, own: bool) -> str | None:
    """Why the key cannot serve as one's own, or as a correspondent's; None when it can."""
    if key.validity == "r":
        return "is revoked"
    if key.validity == "e":
        when = datetime.fromtimestamp(key.expires or 0, UTC).date()
        return f"expired on {when.isoformat()}"
    if "D" in key.capabilities:
        return "is disabled in GnuPG"
    if "E" not in key.capabilities:
        return "has no usable subkey for encryption"
    if own and "S" not in key.capabilities:
        return "has no usable key for signing"
    if own and not key.secret:
        return "has no secret part here"
    return None


def problem_as(key: Key, role: str) -> str | None:
    """As `key_problem`, by role; of a retired key nothing is wanted but that its secret is here."""
    if role in ("retired", "former"):
        return None if key.secret or role == "former" else "has no secret part here"
    return key_problem(key, own=role == "own")


def day_of(expires: int | None) -> str:
    """The day (UTC) of a key's end as profiles note it; empty when it has none."""
    return datetime.fromtimestamp(expires, UTC).date().isoformat() if expires else ""


@dataclass(frozen=True)
class ExportedKeys:
    """A key as the machine needs it: the secret part stays protected by `passphrase`."""

    fingerprint: str
    secret: str
    passphrase: str
    public: str


def addresses_of(user_ids: Iterable[str]) -> tuple[str, ...]:
    """The mail addresses in user ids, in their order, each once."""
    found = (_ADDRESS.search(each) for each in user_ids)
    return tuple(dict.fromkeys((m[1] or m[2]).lower() for m in found if m))
