"""A profile's key as gpg-agent knows it: which keygrips sign, which decrypt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox.host import process


@dataclass(frozen=True)
class Grips:
    """Keygrips of the usable secret parts of one key."""

    sign: tuple[str, ...]
    decrypt: tuple[str, ...]


def read_grips(home: Path, fingerprint: str) -> Grips:
    """The keygrips of a key in a GnuPG home."""
    argv = ["gpg", "--homedir", str(home), "--batch", "--with-colons", "--with-keygrip"]
    listing = process.run([*argv, "--list-secret-keys", "--", fingerprint])
    return parse_grips(listing.stdout.decode(errors="replace"))


def parse_grips(listing: str) -> Grips:
    """From gpg's listing (doc/DETAILS): fields 2 validity, 12 capabilities, 15 where it is.

    With a subkey for signing, the primary key is left out: what it signs could change the key
    itself, and that is nothing a machine does. Old encryption subkeys still decrypt old mail.
    """
    primary: list[str] = []
    sign: list[str] = []
    decrypt: list[str] = []
    parts: list[str] = []
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] in ("sec", "ssb"):
            parts = fields if _is_here(fields) else []
        elif fields[0] == "grp" and parts:
            usable = parts[1] not in ("r", "e", "i", "d", "n")
            if "s" in parts[11] and usable:
                (sign if parts[0] == "ssb" else primary).append(fields[9])
            if "e" in parts[11] and parts[1] != "r":
                decrypt.append(fields[9])
    return Grips(tuple(sign or primary), tuple(decrypt))


def _is_here(fields: list[str]) -> bool:
    return len(fields) > 14 and not fields[14].startswith("#")
