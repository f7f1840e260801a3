"""A profile's key as gpg-agent knows it: which keygrips sign, which decrypt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.host import process


@dataclass(frozen=True)
class Grips:
    """Keygrips of the usable secret parts of keys; `here`: whether there are any parts at all."""

    sign: tuple[str, ...]
    decrypt: tuple[str, ...]
    here: bool = True


def held_grips(home: Path | None, own: str, retired: Sequence[str]) -> Grips:
    """What a machine may use: its own key, if there is one, and what retired ones decrypt."""
    listing = _listing(home, own) if own else ""
    grips = parse_grips(listing)
    old = [grip for each in retired for grip in parse_retired(_listing(home, each))]
    here = bool(old or any(_parts(listing)))
    return Grips(grips.sign, tuple(dict.fromkeys((*grips.decrypt, *old))), here)


def read_grips(home: Path | None, fingerprint: str) -> Grips:
    """The keygrips of a key in a GnuPG home; None is the user's."""
    return parse_grips(_listing(home, fingerprint))


def _listing(home: Path | None, fingerprint: str) -> str:
    where = ["--homedir", str(home)] if home else []
    argv = ["gpg", *where, "--batch", "--with-colons", "--with-keygrip"]
    # Without such a key, gpg fails and lists nothing.
    listing = process.run([*argv, "--list-secret-keys", "--", fingerprint], check=False)
    return listing.stdout.decode(errors="replace")


def parse_grips(listing: str) -> Grips:
    """From gpg's listing (doc/DETAILS): fields 2 validity, 12 capabilities, 15 where it is.

    With a subkey for signing, the primary key is left out: what it signs could change the key
    itself, and that is nothing a machine does. Old encryption subkeys still decrypt old mail.
    """
    primary: list[str] = []
    sign: list[str] = []
    decrypt: list[str] = []
    for parts, grip in _parts(listing):
        usable = parts[1] not in ("r", "e", "i", "d", "n")
        if "s" in parts[11] and usable:
            (sign if parts[0] == "ssb" else primary).append(grip)
        if "e" in parts[11] and parts[1] != "r":
            decrypt.append(grip)
    return Grips(tuple(sign or primary), tuple(decrypt))


def parse_retired(listing: str) -> tuple[str, ...]:
    """What of a retired key decrypts: all that ever did, for the mail is as old; nothing signs."""
    return tuple(grip for parts, grip in _parts(listing) if "e" in parts[11])


def _parts(listing: str) -> Iterator[tuple[list[str], str]]:
    """Each secret part that is here: its fields, and its keygrip."""
    parts: list[str] = []
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] in ("sec", "ssb"):
            parts = fields if _is_here(fields) else []
        elif fields[0] == "grp" and parts:
            yield parts, fields[9]


def _is_here(fields: list[str]) -> bool:
    return len(fields) > 14 and not fields[14].startswith("#")
