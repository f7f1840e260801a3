"""Recovery codes: a passphrase that a person can copy from paper, with a check in every group.

Seven groups of five characters of Crockford's base32 alphabet (no I, L, O, U). The first four of a
group are random, 140 bits in all; the fifth checks them. The code is the passphrase exactly as it
is shown, in capitals and with its dashes (docs/recovery.md).
"""

from __future__ import annotations

import secrets
import unicodedata

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUPS = 7
GROUP = 5
LENGTH = GROUPS * GROUP
# QEMU tries keyslots in order: the volume key's comes first, so that an open stays fast.
KEY_SLOT = 0
CODE_SLOT = 1
_LOOKALIKES = str.maketrans({"O": "0", "I": "1", "L": "1"})
# x^5 + x^2 + 1 generates GF(32); its root is 2.
_POLYNOMIAL = 0b100101


def new_code() -> str:
    """A new code from the system's random numbers."""
    groups = ("".join(secrets.choice(ALPHABET) for _ in range(GROUP - 1)) for _ in range(GROUPS))
    return "-".join(group + _check(index, group) for index, group in enumerate(groups))


def parse_code(text: str) -> str:
    """The code that was typed, in the form that is the passphrase.

    Capitals or not, spaces, dashes, and O for 0, I or L for 1 make no difference.

    Raises:
        ValueError: says where the typing error is; never repeats what was typed.
    """
    typed = "".join(char for char in text.upper() if not _separates(char)).translate(_LOOKALIKES)
    groups = [typed[at : at + GROUP] for at in range(0, len(typed), GROUP)]
    for index, group in enumerate(groups[:GROUPS]):
        if len(group) == GROUP and not _fits(index, group):
            raise ValueError(f"there is a typing error in group {index + 1} of {GROUPS}")
    if len(typed) != LENGTH:
        raise ValueError(f"a recovery code has {LENGTH} characters, not {len(typed)}")
    return "-".join(groups)


def _separates(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Pd", "Cf") or char in "_.,"


def _fits(index: int, group: str) -> bool:
    return set(group) <= set(ALPHABET) and _check(index, group[:-1]) == group[-1]


def _check(index: int, data: str) -> str:
    """The check character of a group.

    A sum over GF(32) with a weight for each place: any one wrong character and any two that
    changed places are found; the group's number is in it, so that groups cannot change places.
    """
    total = index
    for place, char in enumerate(data, start=1):
        total ^= _times(ALPHABET.index(char), place)
    return ALPHABET[total]


def _times(value: int, power: int) -> int:
    """The value times 2 to the `power` in GF(32)."""
    for _ in range(power):
        value <<= 1
        if value & 0b100000:
            value ^= _POLYNOMIAL
    return value
