"""An OpenPGP key closely: its parts, what each is for, and where its secret lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# What GnuPG's letters say (doc/DETAILS, field 12).
_USES = {"c": "certify", "s": "sign", "e": "encrypt", "a": "authenticate"}
HERE, OFFLINE, NOWHERE = "here", "offline", "none"
VALID = "valid"


class Reason(StrEnum):
    """Why a key is revoked."""

    UNSPECIFIED = "unspecified"
    COMPROMISED = "compromised"
    SUPERSEDED = "superseded"
    UNUSED = "unused"


class Algorithm(StrEnum):
    """What a new key is made of."""

    ED25519 = "ed25519"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"


@dataclass(frozen=True)
class NewKey:
    """How a key is to be made: `lasts` as GnuPG takes it; with `split`, a subkey signs mail."""

    algorithm: Algorithm = Algorithm.ED25519
    lasts: str = "2y"
    split: bool = False


@dataclass(frozen=True)
class Part:
    """The primary key or a subkey; moments are UNIX times.

    `state` is valid, expired, revoked or unusable; `secret` is here, offline, none, or the number
    of the smartcard that has it.
    """

    fingerprint: str
    algorithm: str
    uses: tuple[str, ...]
    created: int
    expires: int | None
    state: str
    secret: str


@dataclass(frozen=True)
class UserId:
    """A user id as it is in the key: any text; `state` as a part's."""

    text: str
    state: str


@dataclass(frozen=True)
class Details:
    """A key with all that is in it; the first part is the primary key."""

    user_ids: tuple[UserId, ...]
    parts: tuple[Part, ...]

    @property
    def primary(self) -> Part:
        """The key that certifies the others."""
        return self.parts[0]

    def serves(self, use: str) -> bool:
        """Whether a part with its secret here can do that now."""
        alive = self.primary.state == VALID
        return alive and any(_can(part, use) and part.secret == HERE for part in self.parts)


def _can(part: Part, use: str) -> bool:
    return use in part.uses and part.state == VALID


def uses_of(letters: str) -> tuple[str, ...]:
    """The part's own uses (small letters) as words."""
    return tuple(word for letter, word in _USES.items() if letter in letters)


def to_extend(parts: Sequence[Part]) -> tuple[str, ...]:
    """The subkeys whose end moves with the primary key's.

    Those that serve; and the newest one of a use that none serves any more, for a key that has
    expired as a whole. Older ones ended on purpose and stay so.
    """
    subkeys = [part for part in parts[1:] if part.state in (VALID, "expired")]
    chosen = [part for part in subkeys if part.state == VALID]
    for use in ("sign", "encrypt", "authenticate"):
        if not any(_can(part, use) for part in parts):
            able = [part for part in subkeys if use in part.uses]
            chosen += sorted(able, key=lambda part: part.created)[-1:]
    return tuple(dict.fromkeys(part.fingerprint for part in chosen))
