"""LUKS1 headers and keyslots made without a program.

`qemu-img` spends seconds on measuring how fast it derives keys, whatever it is asked for, and gives
up where its clock has not moved meanwhile. QEMU and cryptsetup read what is made here.
Source: LUKS On-Disk Format Specification 1.2.3.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from dataclasses import dataclass

from sandbox.host import luks

_KEY = 64
_STRIPES = 4000
# The least that QEMU accepts (crypto/block-luks.c); it adds nothing to 256 random bits.
FAST_ITERATIONS = 1000
# What a person types is worth more, however busy the computer is that counts (OWASP, 2023).
_LEAST_SLOW = 600_000
_TRIAL_ITERATIONS = 50_000
_DIGEST = 20
_SALT = 32
# As QEMU lays it out: keyslots begin and end at multiples of 4 KiB.
_FIRST_SLOT = 4096 // luks.SECTOR
_SLOT_SECTORS = 504
PAYLOAD = (_FIRST_SLOT + luks.SLOTS * _SLOT_SECTORS) * luks.SECTOR


@dataclass(frozen=True)
class Write:
    """Bytes, and where in the volume they belong."""

    offset: int
    content: bytes


def new_header(passphrase: bytes) -> bytes:
    """A header whose first keyslot the passphrase opens, up to that keyslot's end.

    The passphrase is random. The data begin at `PAYLOAD`; what lies between is not in use.
    """
    volume_key, digest_salt = secrets.token_bytes(_KEY), secrets.token_bytes(_SALT)
    digest = hashlib.pbkdf2_hmac("sha256", volume_key, digest_salt, FAST_ITERATIONS, _DIGEST)
    fields = luks.FIELDS.pack(
        *(luks.MAGIC[:6], 1, b"aes", b"xts-plain64", b"sha256", PAYLOAD // luks.SECTOR, _KEY),
        *(digest, digest_salt, FAST_ITERATIONS, str(uuid.uuid4()).encode()),
    )
    free = (
        luks.SLOT.pack(luks.DISABLED, 0, b"", _FIRST_SLOT + number * _SLOT_SECTORS, _STRIPES)
        for number in range(luks.SLOTS)
    )
    empty = (fields + b"".join(free)).ljust(_FIRST_SLOT * luks.SECTOR, b"\0")
    (material, entry), _ = _filled(
        empty.ljust(PAYLOAD, b"\0"), 0, volume_key, passphrase, FAST_ITERATIONS
    )
    header = empty[: entry.offset] + entry.content + empty[entry.offset + len(entry.content) :]
    return header + material.content


def new_keyslot(
    content: bytes, number: int, opening: bytes, new: bytes, iterations: int
) -> tuple[tuple[Write, ...], bytes]:
    """What is to be written, in this order, so that `new` opens a free keyslot, too.

    Until the last of it is there the keyslot is free. With it comes what the PBKDF of `new` came
    to, for `luks.remember`. `content` is the volume up to its data, `opening` opens it.

    Raises:
        luks.BadHeaderError: as `luks.find_slot`, or when `opening` does not open it.
    """
    volume_key = luks.volume_key(content, opening)
    if volume_key is None:
        raise luks.BadHeaderError("none of its keyslots is opened by the key")
    return _filled(content, number, volume_key, new, iterations)


def dead_keyslot(content: bytes, number: int) -> tuple[Write, ...]:
    """What is to be written, in this order, so that a keyslot is free and its material gone."""
    slot = luks.place(content, number)
    entry = luks.SLOT.pack(luks.DISABLED, 0, b"", slot.offset // luks.SECTOR, slot.stripes)
    noise = Write(slot.offset, secrets.token_bytes(slot.length))
    return noise, Write(luks.GEOMETRY + number * luks.SLOT.size, entry)


def slow_iterations(seconds: float) -> int:
    """How many iterations of the PBKDF take about as long on this computer."""
    begun = time.thread_time()
    hashlib.pbkdf2_hmac("sha256", b"passphrase", bytes(_SALT), _TRIAL_ITERATIONS, _KEY)
    used = time.thread_time() - begun
    fitting = int(_TRIAL_ITERATIONS * seconds / used) if used > 0 else 0
    return min(max(fitting, _LEAST_SLOW), luks.MOST_ITERATIONS)


def _filled(
    content: bytes, number: int, volume_key: bytes, passphrase: bytes, iterations: int
) -> tuple[tuple[Write, Write], bytes]:
    header, place = luks.read_header(content), luks.place(content, number)
    salt = secrets.token_bytes(_SALT)
    slot = luks.Slot(number, iterations, salt, place.offset, place.length, place.stripes)
    derived = luks.derive(header, slot, passphrase)
    material = luks.encrypt(_split(volume_key, slot.stripes, header.hash), derived)
    sector = slot.offset // luks.SECTOR
    entry = luks.SLOT.pack(luks.ACTIVE, iterations, salt, sector, slot.stripes)
    at = luks.GEOMETRY + number * luks.SLOT.size
    return (Write(slot.offset, material), Write(at, entry)), derived


def _split(key: bytes, stripes: int, hash_name: str) -> bytes:
    """Anti-forensic split (specification 2.4), which `luks` merges again."""
    noise = secrets.token_bytes(len(key) * (stripes - 1))
    return noise + luks.xor(key, luks.last_block(noise, len(key), hash_name))
