"""The LUKS1 header of a volume that holds a machine's memory for a while, made without a program.

`qemu-img` spends two seconds on measuring how fast it derives keys, whatever it is asked for. For a
random key that lives from one suspend to the next open, the least that QEMU reads is enough.
Volumes with mail on them are made by QEMU. Source: LUKS On-Disk Format Specification 1.2.3.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import uuid

from sandbox.host import luks

_KEY = 64
_STRIPES = 4000
# The least that QEMU accepts (crypto/block-luks.c); it adds nothing to 256 random bits.
_ITERATIONS = 1000
_DIGEST = 20
_SALT = 32
_DISABLED = 0x0000DEAD
# As QEMU lays it out: keyslots begin and end at multiples of 4 KiB.
_FIRST_SLOT = 4096 // luks.SECTOR
_SLOT_SECTORS = 504
PAYLOAD = (_FIRST_SLOT + luks.SLOTS * _SLOT_SECTORS) * luks.SECTOR
_FIELDS = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")


def new_header(passphrase: bytes) -> bytes:
    """A header whose first keyslot the passphrase opens, up to that keyslot's end.

    The data begin at `PAYLOAD`; what lies between is not in use.
    """
    volume_key, salt, digest_salt = (secrets.token_bytes(n) for n in (_KEY, _SALT, _SALT))
    derived = hashlib.pbkdf2_hmac("sha256", passphrase, salt, _ITERATIONS, _KEY)
    digest = hashlib.pbkdf2_hmac("sha256", volume_key, digest_salt, _ITERATIONS, _DIGEST)
    fields = _FIELDS.pack(
        *(luks.MAGIC[:6], 1, b"aes", b"xts-plain64", b"sha256", PAYLOAD // luks.SECTOR, _KEY),
        *(digest, digest_salt, _ITERATIONS, str(uuid.uuid4()).encode()),
    )
    first = _SLOT.pack(luks.ACTIVE, _ITERATIONS, salt, _FIRST_SLOT, _STRIPES)
    others = (
        _SLOT.pack(_DISABLED, 0, b"", _FIRST_SLOT + number * _SLOT_SECTORS, _STRIPES)
        for number in range(1, luks.SLOTS)
    )
    header = (fields + first + b"".join(others)).ljust(_FIRST_SLOT * luks.SECTOR, b"\0")
    return header + luks.encrypt(_split(volume_key), derived)


def _split(key: bytes) -> bytes:
    """Anti-forensic split (specification 2.4), which `luks` merges again."""
    noise = secrets.token_bytes(_KEY * (_STRIPES - 1))
    return noise + luks.xor(key, luks.last_block(noise, _KEY, "sha256"))
