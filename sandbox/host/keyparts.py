"""Which secret parts of an OpenPGP key are on this computer (GnuPG: doc/DETAILS, field 15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
