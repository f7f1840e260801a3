"""GnuPG's listing for programs, of keys in public (doc/DETAILS of GnuPG)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sandbox.model.keys import Key, addresses_of
from sandbox.model.packets import read_keys

# Debian's GnuPG 2.4 takes user ids that the owner of the key did not sign, unless told otherwise.
SIGNED_ONLY = "--no-allow-non-selfsigned-uid"
# A user id that its owner revoked, that expired, or that nothing binds to the key, names nobody.
_INVALID = frozenset("rein")
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")


def read_listing(text: str) -> tuple[Key, ...]:
    """The keys of `gpg --with-colons --list-keys`, each with its valid user ids only."""
    records = (line.split(":") for line in text.splitlines())
    return tuple(_key(key) for key in _by_key(fields for fields in records if len(fields) > 9))


def _by_key(records: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    gathered: list[list[str]] = []
    for fields in records:
        if fields[0] == "pub":
            if gathered:
                yield gathered
            gathered = []
        if fields[0] == "pub" or gathered:
            gathered.append(fields)
    if gathered:
        yield gathered


def _key(records: list[list[str]]) -> Key:
    public = records[0]
    fingerprint = next((fields[9] for fields in records if fields[0] == "fpr"), "")
    named = [fields for fields in records if fields[0] == "uid" and fields[1] not in _INVALID]
    user_ids = tuple(_unescaped(fields[9]) for fields in named)
    return Key(
        fingerprint=fingerprint,
        user_ids=user_ids,
        addresses=addresses_of(user_ids),
        capabilities=public[11] if len(public) > 11 else "",
        validity=public[1],
        expires=int(public[6]) if public[6].isdigit() else None,
    )


def _unescaped(field: str) -> str:
    raw = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), field.encode(errors="replace"))
    return raw.decode(errors="replace")


def exported_keys(gpg: Any, fingerprints: Sequence[str]) -> dict[str, bytes]:
    """The public keys by fingerprint: one export for all, split into its keys."""
    if not fingerprints:
        return {}
    data: bytes = gpg.export_keys(list(fingerprints), armor=False, minimal=True)
    return {each.fingerprint: each.data for each in (read_keys(data) if data else ())}
