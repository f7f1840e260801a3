"""The table `openpgp` of a profile: its own key, those that it had, and its correspondents'."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from sandbox.model import names
from sandbox.model.schema import Reader


@dataclass(frozen=True)
class Correspondent:
    """Somebody whose key was accepted, by fingerprint; the key itself is in the key store."""

    fingerprint: str
    addresses: tuple[str, ...]
    # The day on which it ends (ISO date); empty: never, or not known.
    expires: str = ""


@dataclass(frozen=True)
class Keys:
    """The profile's OpenPGP key and its correspondents'.

    `retired` keys, the newest first, only decrypt what was written to them. `expires` is the own
    key's day, as a correspondent's. The secrets of `forgotten` keys were destroyed here, and the
    mail client has to let go of its copies.
    """

    fingerprint: str | None = None
    correspondents: tuple[Correspondent, ...] = ()
    retired: tuple[str, ...] = ()
    expires: str = ""
    forgotten: tuple[str, ...] = ()

    @property
    def private(self) -> tuple[str, ...]:
        """The fingerprints of all keys that the mailbox has the secret of, its own first."""
        return (*((self.fingerprint,) if self.fingerprint else ()), *self.retired)


def read_keys(reader: Reader) -> Keys:
    """The keys in a profile's table; problems gather in the reader."""
    fingerprint = reader.parsed("fingerprint", names.parse_fingerprint, "")
    expires = reader.parsed("expires", _parse_day, "")
    retired = _keys(reader, "retired")
    forgotten = _keys(reader, "forgotten")
    correspondents = tuple(_correspondent(each) for each in reader.tables("correspondents"))
    reader.finish()
    others = tuple(key for key in retired if key != fingerprint)
    gone = tuple(key for key in forgotten if key not in (fingerprint, *others))
    return Keys(fingerprint or None, correspondents, others, expires, gone)


def _correspondent(entry: Reader) -> Correspondent:
    key = entry.parsed("fingerprint", names.parse_fingerprint, "")
    if not key:
        entry.problem("fingerprint", "is missing")
    addresses = entry.get("addresses", list, [])
    if not all(isinstance(address, str) for address in addresses):
        entry.problem("addresses", "is not a list of texts")
    expires = entry.parsed("expires", _parse_day, "")
    entry.finish()
    return Correspondent(key, tuple(map(str, addresses)), expires)


def _keys(reader: Reader, field: str) -> tuple[str, ...]:
    found = []
    for entry in reader.get(field, list, []):
        try:
            found.append(names.parse_fingerprint(str(entry)))
        except ValueError as error:
            reader.problem(field, str(error))
    return tuple(dict.fromkeys(found))


def _parse_day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is not a day such as 2028-05-04") from None


def write_keys(keys: Keys) -> dict[str, Any]:
    """The keys as a table that `read_keys` understands."""
    written: dict[str, Any] = {}
    if keys.fingerprint:
        written["fingerprint"] = keys.fingerprint
    if keys.expires:
        written["expires"] = keys.expires
    if keys.retired:
        written["retired"] = list(keys.retired)
    if keys.forgotten:
        written["forgotten"] = list(keys.forgotten)
    written["correspondents"] = [
        {"fingerprint": each.fingerprint, "addresses": list(each.addresses)}
        | ({"expires": each.expires} if each.expires else {})
        for each in keys.correspondents
    ]
    return written
