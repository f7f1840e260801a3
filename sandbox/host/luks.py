"""LUKS1 headers read without root: which keyslot a passphrase opens, and whether they are whole.

What is written to them is in `luks_new`.
Source: LUKS On-Disk Format Specification 1.2.3, sections 2 to 4.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

MAGIC = b"LUKS\xba\xbe\x00\x01"
SECTOR = 512
SLOTS = 8
PHDR = 592
# Everything before the keyslots: what the data are read by; nobody ever changes it.
GEOMETRY = 208
# What mailbox makes its volumes with, as cryptsetup(8) writes it.
CIPHER = "aes-xts-plain64"
# Eight keyslots of a 512-bit key take 2 MiB.
LONGEST = 16 * 1024**2
# A header with random bytes in it must not make anybody wait for hours. Two seconds are about
# ten million iterations today.
MOST_ITERATIONS = 2**29
FIELDS = struct.Struct(">6sH32s32s32sII20s32sI40s")
SLOT = struct.Struct(">II32sII")
ACTIVE = 0x00AC71F3
DISABLED = 0x0000DEAD
_HASHES = ("sha1", "sha256", "sha512", "ripemd160")


class BadHeaderError(Exception):
    """The header cannot be what it was; says which part of it."""


@dataclass(frozen=True)
class Slot:
    """A keyslot that is in use; `offset` and `length` of its key material in bytes."""

    number: int
    iterations: int
    salt: bytes
    offset: int
    length: int
    stripes: int


@dataclass(frozen=True)
class Header:
    """A LUKS1 header: `payload` is where the data begin, in bytes."""

    hash: str
    payload: int
    key_bytes: int
    digest: bytes
    digest_salt: bytes
    digest_iterations: int
    uuid: str
    slots: tuple[Slot, ...]

    def slot(self, number: int) -> Slot | None:
        """The keyslot of this number when it is in use."""
        return next((slot for slot in self.slots if slot.number == number), None)

    @property
    def free(self) -> tuple[int, ...]:
        """The numbers of keyslots that are not in use."""
        used = {slot.number for slot in self.slots}
        return tuple(number for number in range(SLOTS) if number not in used)


def read_header(content: bytes) -> Header:
    """The header at the beginning of a volume.

    Raises:
        BadHeaderError: when it is none, or none that `mailbox` and QEMU make.
    """
    if len(content) < PHDR or not content.startswith(MAGIC):
        raise BadHeaderError("it does not begin as a LUKS header does")
    _, _, cipher, mode, hash_name, payload, key_bytes, digest, salt, iterations, uuid = (
        FIELDS.unpack_from(content)
    )
    spec = (_text(cipher), _text(mode), key_bytes)
    if spec != ("aes", "xts-plain64", 64) or _text(hash_name) not in _HASHES:
        raise BadHeaderError("it names a cipher that mailbox does not use")
    if not PHDR <= payload * SECTOR <= LONGEST:
        raise BadHeaderError("the place where its data begin cannot be right")
    if not 0 < iterations <= MOST_ITERATIONS:
        raise BadHeaderError("the check of its volume key cannot be right")
    slots = tuple(_slots(content, payload * SECTOR, key_bytes))
    return Header(
        _text(hash_name), payload * SECTOR, key_bytes, digest, salt, iterations, _text(uuid), slots
    )


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", errors="replace")


def _slots(content: bytes, payload: int, key_bytes: int) -> list[Slot]:
    found = []
    for number in range(SLOTS):
        state, slot = _slot(content, payload, key_bytes, number)
        if state != ACTIVE:
            continue
        if not 0 < slot.iterations <= MOST_ITERATIONS:
            raise BadHeaderError(f"the iterations of its keyslot {number} cannot be right")
        found.append(slot)
    return found


def _slot(content: bytes, payload: int, key_bytes: int, number: int) -> tuple[int, Slot]:
    state, iterations, salt, sector, stripes = SLOT.unpack_from(
        content, GEOMETRY + number * SLOT.size
    )
    slot = Slot(number, iterations, salt, sector * SECTOR, stripes * key_bytes, stripes)
    if state == ACTIVE and not _is_inside(slot, payload):
        raise BadHeaderError(f"its keyslot {number} lies outside of the header")
    return state, slot


def _is_inside(slot: Slot, payload: int) -> bool:
    end = slot.offset + slot.length
    return PHDR <= slot.offset < end <= payload and 0 < slot.stripes <= 2**16


def place(content: bytes, number: int) -> Slot:
    """Where a keyslot is, or would be; raises as `read_header`, also for one that has no place."""
    header = read_header(content)
    _, slot = _slot(content, header.payload, header.key_bytes, number)
    others = [each for each in header.slots if each.number != number]
    apart = all(
        slot.offset >= each.offset + each.length or each.offset >= slot.offset + slot.length
        for each in others
    )
    if not (_is_inside(slot, header.payload) and apart):
        raise BadHeaderError(f"its keyslot {number} has no place")
    return slot


def opens(content: bytes, number: int, passphrase: bytes) -> bool:
    """Whether the passphrase opens this keyslot; raises as `find_slot`."""
    header = read_header(content)
    slot = header.slot(number)
    return slot is not None and _opens(content, header, slot, passphrase)


def find_slot(content: bytes, passphrase: bytes) -> int | None:
    """The first keyslot that the passphrase opens, tried in QEMU's order; None when it is none.

    `content` is the volume up to its data. Each slot that does not open costs its PBKDF.

    Raises:
        BadHeaderError: as `read_header`, or when the content ends before the keyslots do.
    """
    header = _whole(content)
    return next((s.number for s in header.slots if _opens(content, header, s, passphrase)), None)


def fingerprints(content: bytes) -> dict[str, str]:
    """SHA-256 of each part of a header that is in use: `geometry`, and each keyslot's number.

    They tell later which part has changed. They give no help in finding a passphrase that the
    header itself, which lies in the same folder, does not give.
    """
    header = read_header(content)
    parts = {"geometry": content[:GEOMETRY]}
    for slot in header.slots:
        at = GEOMETRY + slot.number * SLOT.size
        material = content[slot.offset : slot.offset + slot.length]
        parts[str(slot.number)] = content[at : at + SLOT.size] + material
    return {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}


# What was tried in this run, by the digest of all that it depends on: a PBKDF costs seconds.
_TRIED: dict[bytes, bool] = {}


def remember(content: bytes, number: int, passphrase: bytes, derived: bytes) -> bool:
    """As `opens`, by one who knows what the passphrase's PBKDF comes to; later, too."""
    header = read_header(content)
    slot = header.slot(number)
    return slot is not None and _try(content, header, slot, passphrase, derived) is not None


def volume_key(content: bytes, passphrase: bytes) -> bytes | None:
    """The key that the data are encrypted with, or None; raises as `find_slot`."""
    header = _whole(content)
    for slot in header.slots:
        if _TRIED.get(_trial(content, header, slot, passphrase)) is False:
            continue
        key = _try(content, header, slot, passphrase, derive(header, slot, passphrase))
        if key is not None:
            return key
    return None


def derive(header: Header, slot: Slot, passphrase: bytes) -> bytes:
    """The key of a keyslot's material."""
    return hashlib.pbkdf2_hmac(
        header.hash, passphrase, slot.salt, slot.iterations, header.key_bytes
    )


def _trial(content: bytes, header: Header, slot: Slot, passphrase: bytes) -> bytes:
    material = content[slot.offset : slot.offset + slot.length]
    return hashlib.sha256(repr((header, slot, material, passphrase)).encode()).digest()


def _opens(content: bytes, header: Header, slot: Slot, passphrase: bytes) -> bool:
    trial = _trial(content, header, slot, passphrase)
    if trial not in _TRIED:
        _try(content, header, slot, passphrase, derive(header, slot, passphrase))
    return _TRIED[trial]


def _whole(content: bytes) -> Header:
    header = read_header(content)
    if len(content) < header.payload:
        raise BadHeaderError("it is cut off")
    return header


def _try(
    content: bytes, header: Header, slot: Slot, passphrase: bytes, derived: bytes
) -> bytes | None:
    """The volume key, when the passphrase, whose PBKDF comes to `derived`, opens the keyslot."""
    key = _unlock(content, header, slot, derived)
    _TRIED[_trial(content, header, slot, passphrase)] = key is not None
    return key


def _unlock(content: bytes, header: Header, slot: Slot, derived: bytes) -> bytes | None:
    split = _decrypt(content[slot.offset : slot.offset + slot.length], derived)
    candidate = _merge(split, header.key_bytes, slot.stripes, header.hash)
    digest = hashlib.pbkdf2_hmac(
        header.hash, candidate, header.digest_salt, header.digest_iterations, len(header.digest)
    )
    return candidate if digest == header.digest else None


def _decrypt(material: bytes, key: bytes) -> bytes:
    """Key material is encrypted as a disk of its own: AES-XTS, plain64 sector numbers from 0."""
    plain = bytearray()
    for sector in range(0, len(material), SECTOR):
        decryptor = _cipher(key, sector // SECTOR).decryptor()
        plain += decryptor.update(material[sector : sector + SECTOR]) + decryptor.finalize()
    return bytes(plain)


def encrypt(material: bytes, key: bytes) -> bytes:
    """Encrypt key material as it is decrypted; whole sectors."""
    hidden = bytearray()
    for sector in range(0, len(material), SECTOR):
        encryptor = _cipher(key, sector // SECTOR).encryptor()
        hidden += encryptor.update(material[sector : sector + SECTOR]) + encryptor.finalize()
    return bytes(hidden)


def _cipher(key: bytes, sector: int) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.XTS(sector.to_bytes(16, "little")))


def _merge(split: bytes, length: int, stripes: int, hash_name: str) -> bytes:
    """Anti-forensic merge (specification 2.4): every stripe is needed for the key."""
    last = (stripes - 1) * length
    return xor(last_block(split[:last], length, hash_name), split[last : last + length])


def last_block(split: bytes, length: int, hash_name: str) -> bytes:
    """What all stripes but the last come to; with the last one it gives the key."""
    block = bytes(length)
    for at in range(0, len(split), length):
        block = _diffuse(xor(block, split[at : at + length]), hash_name)
    return block


def _diffuse(block: bytes, hash_name: str) -> bytes:
    size = hashlib.new(hash_name).digest_size
    whole = b""
    for index, at in enumerate(range(0, len(block), size)):
        piece = block[at : at + size]
        whole += hashlib.new(hash_name, index.to_bytes(4, "big") + piece).digest()[: len(piece)]
    return whole


def xor(one: bytes, other: bytes) -> bytes:
    """The bytes of one, changed where the other has bits."""
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))
