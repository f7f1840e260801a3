"""Small LUKS1 volumes that are real: two stripes a keyslot, one iteration, made without QEMU."""

from __future__ import annotations

import hashlib
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sandbox.host import luks

# One sector for each of eight keyslots after two for the header.
_FIRST = 1024
PAYLOAD = _FIRST + 8 * 512
_STRIPES = 2
VOLUME_KEY = hashlib.sha512(b"the volume key of every volume in these tests").digest()


def luks_bytes(key: bytes) -> bytes:
    """A volume with 3 KiB of data whose keyslot 0 opens with the key."""
    digest = hashlib.pbkdf2_hmac("sha256", VOLUME_KEY, bytes(32), 1, 20)
    fields = (b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", PAYLOAD // 512, 64)
    head = struct.pack(">6sH32s32s32sII20s32sI40s", *fields, digest, bytes(32), 1, b"a-uuid")
    slots = b"".join(_entry(number, active=False) for number in range(8))
    header = (head + slots).ljust(PAYLOAD, b"\0")
    return add_slot(header, 0, key) + bytes(3 * 1024)


def add_slot(volume: bytes, slot: int, key: bytes) -> bytes:
    """The volume with a keyslot more."""
    first = hashlib.sha512(b"the first stripe").digest()
    diffused = luks._diffuse(first, "sha256")
    split = first + luks.xor(diffused, VOLUME_KEY)
    derived = hashlib.pbkdf2_hmac("sha256", key, bytes([slot]) * 32, 1, 64)
    encryptor = Cipher(algorithms.AES(derived), modes.XTS(bytes(16))).encryptor()
    material = encryptor.update(split) + encryptor.finalize()
    return _put(_put(volume, 208 + 48 * slot, _entry(slot, active=True)), _place(slot), material)


def kill_slot(volume: bytes, slot: int) -> bytes:
    """The volume without that keyslot."""
    volume = _put(volume, 208 + 48 * slot, _entry(slot, active=False))
    return _put(volume, _place(slot), b"\xff" * _STRIPES * 64)


def _place(slot: int) -> int:
    return _FIRST + 512 * slot


def _entry(slot: int, *, active: bool) -> bytes:
    state = 0x00AC71F3 if active else 0x0000DEAD
    return struct.pack(">II32sII", state, 1, bytes([slot]) * 32, _place(slot) // 512, _STRIPES)


def _put(volume: bytes, at: int, content: bytes) -> bytes:
    return volume[:at] + content + volume[at + len(content) :]
