"""Names of profiles, and the few plain values a profile is made of, each with its check."""

from __future__ import annotations

import re
import unicodedata

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_ADDRESS_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}\Z")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\Z")
_SIZE = re.compile(r"(\d{1,6})\s*([KMGT])(i?B)?\Z", re.IGNORECASE | re.ASCII)
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
FINGERPRINT = re.compile(r"(?:[0-9A-F]{40}|[0-9A-F]{64})\Z")

COLOURS = {
    "green": "#2a7f62",
    "blue": "#1f5fa8",
    "red": "#b3312c",
    "orange": "#c26a12",
    "purple": "#6b3fa0",
    "teal": "#127a8a",
    "brown": "#7a5230",
    "grey": "#5a6068",
}


def name_problem(name: str) -> str | None:
    """Why `name` cannot name a profile, or None."""
    if not NAME.match(name):
        return (
            f"{name!r} is not a usable name: 1 to 63 letters, digits, dots, dashes or "
            "underscores, beginning with a letter or digit"
        )
    return None


def same_name(one: str, other: str) -> bool:
    """Whether two names would be the same profile: case does not tell them apart."""
    return one.casefold() == other.casefold()


def address_problem(address: str) -> str | None:
    """Why `address` is no plain mail address (RFC 5321 Mailbox without quoting), or None."""
    from sandbox.model.endpoints import host_problem

    local, at, domain = address.rpartition("@")
    dots = local.startswith(".") or local.endswith(".") or ".." in local
    if not at or dots or not _ADDRESS_LOCAL.match(local) or host_problem(domain):
        return f"{address!r} is not a mail address"
    return None


def text_problem(text: str, limit: int = 200) -> str | None:
    """Why `text` cannot be shown as a name or label, or None."""
    if len(text) > limit:
        return f"is longer than {limit} characters"
    return _character_problem(text)


def signature_problem(text: str, limit: int = 10_000) -> str | None:
    """Why `text` cannot be a mail's signature, or None; it may have several lines."""
    if len(text) > limit:
        return f"is longer than {limit} characters"
    return _character_problem(text.replace("\n", "").replace("\t", ""))


def _character_problem(text: str) -> str | None:
    kinds = {unicodedata.category(character) for character in text}
    if "Cs" in kinds:
        return "is not text in UTF-8"
    if "Cc" in kinds:
        return "contains control characters"
    return None


def parse_colour(text: str) -> str:
    """A colour as `#rrggbb`, from that form or one of the names in `COLOURS`.

    Raises:
        ValueError: when it is neither.
    """
    colour = COLOURS.get(text.lower(), text)
    if not _COLOUR.match(colour):
        raise ValueError(f"{text!r} is not a colour: #rrggbb or one of {', '.join(COLOURS)}")
    return colour.lower()


def parse_size(text: str) -> int:
    """The size of a volume such as `20G` or `512MiB`, in bytes (binary units).

    Raises:
        ValueError: when malformed, or below 64 MiB (an ext4 volume needs room for its journal).
    """
    return _parse_size(text, 64 * 1024**2, "a volume needs at least 64M")


def parse_memory(text: str) -> int:
    """The memory of a machine such as `2G`, in bytes (binary units).

    Raises:
        ValueError: when malformed, or below 768 MiB (a mail client would be killed).
    """
    return _parse_size(text, 768 * 1024**2, "a mail client needs at least 768M")


def _parse_size(text: str, least: int, why: str) -> int:
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size such as 20G")
    size = int(match[1]) * _UNITS[match[2].upper()]
    if size < least:
        raise ValueError(f"{text!r} is too small: {why}")
    return size


def parse_fingerprint(text: str) -> str:
    """An OpenPGP fingerprint (RFC 9580 v4 or v6) without spaces, in upper case.

    Raises:
        ValueError: when it is not 40 or 64 hexadecimal digits (short key ids are refused:
            they can be forged).
    """
    fingerprint = re.sub(r"\s+", "", text).upper().removeprefix("0X")
    if not FINGERPRINT.match(fingerprint):
        raise ValueError(f"{text!r} is not a full fingerprint (40 hexadecimal digits)")
    return fingerprint


def human_size(size: int) -> str:
    """Bytes as people read them, binary units."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
