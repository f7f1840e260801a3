"""What an OpenPGP key is made of, and which secret parts are here (GnuPG: doc/DETAILS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.model.keydetails import Algorithm
from sandbox.model.packets import read_keys

_HERE, _STUB = ("+", ""), "#"
_WORDS = {"s": "signing", "e": "decrypting"}


def parts_problem(listed: Mapping[str, Any]) -> str | None:
    """Why a listed secret key cannot be copied for use, or None.

    Offline or on a card may be what is not needed, such as the part that only certifies.
    """
    parts = [listed, *listed.get("subkey_info", {}).values()]
    here = _uses(part for part in parts if part["token"] in _HERE)
    for use, word in _WORDS.items():
        if use in here:
            continue
        away = [part["token"] for part in parts if use in part["cap"]]
        cards = [token for token in away if token != _STUB]
        if cards:
            return f"keeps its secret for {word} on a smartcard ({cards[0]}), which gives no copy"
        if away:
            return f"has no secret for {word} on this computer, only a stub of it"
    return None


def _uses(parts: Any) -> str:
    # Small letters are the part's own uses, capital ones those of the whole key.
    return "".join(part["cap"] for part in parts)


_RSA, _LEAST_RSA_BITS = ("1", "2", "3"), 2048


def weakness(listed: Mapping[str, Any]) -> str | None:
    """Why mail clients rightly refuse what the key is made of, or None."""
    parts = [listed, *listed.get("subkey_info", {}).values()]
    bits = min((int(part["length"]) for part in parts if part["algo"] in _RSA), default=0)
    return f"is RSA with {bits} bits, fewer than {_LEAST_RSA_BITS}" if 0 < bits < 2048 else None


def material(algorithm: Algorithm) -> dict[str, Any]:
    """Primary key and encryption subkey, as GnuPG's parameters name them."""
    if algorithm is Algorithm.ED25519:
        subkey = {"subkey_type": "ECDH", "subkey_curve": "cv25519"}
        return {"key_type": "EDDSA", "key_curve": "ed25519", **subkey}
    bits = int(algorithm.removeprefix("rsa"))
    subkey = {"subkey_type": "RSA", "subkey_length": str(bits)}
    return {"key_type": "RSA", "key_length": bits, **subkey}


def version_problem(key: bytes) -> str | None:
    """The reason for which GnuPG finds no key in a file that has one, or None."""
    try:
        versions = [each.version for each in read_keys(key)]
    except ValueError:
        return None
    strange = next((each for each in versions if each != 4), None)
    if strange is None:
        return None
    return f"holds a key of version {strange}, which GnuPG on this computer cannot use"
