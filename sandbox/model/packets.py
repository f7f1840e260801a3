"""OpenPGP keys as bytes: the armor, and where in a file one key ends and the next begins.

Only what tells keys apart (RFC 9580, sections 4, 5.5 and 6); what a key says is for GnuPG to judge.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ARMOR = re.compile(
    rb"-----BEGIN PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----[ \t]*\r?\n"
    rb"(.*?)-----END PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----",
    re.DOTALL,
)
_SECRET, _PUBLIC = 5, 6
# How a fingerprint is made, by the version of the key: hash, first octet, octets of the length.
_PRINTS = {4: ("sha1", b"\x99", 2), 5: ("sha256", b"\x9a", 4), 6: ("sha256", b"\x9b", 4)}
_PARTIAL = "a packet has no definite length"
_CUT = "it is cut off"


@dataclass(frozen=True)
class Bundle:
    """One key with its user ids and subkeys; without a fingerprint when its version is unknown."""

    fingerprint: str
    version: int
    secret: bool
    data: bytes = field(repr=False)


def read_keys(untrusted: bytes) -> tuple[Bundle, ...]:
    """The keys of a file, armored or not.

    Raises:
        ValueError: with the reason, as the end of a sentence.
    """
    blocks = [_decoded(found) for found in _ARMOR.findall(untrusted)]
    found = tuple(key for block in blocks or [untrusted] for key in _split(block))
    if not found:
        raise ValueError("holds no OpenPGP key")
    return found


def armored(data: bytes) -> str:
    """One key in the form that every program reads."""
    text = base64.b64encode(data).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    check = base64.b64encode(_crc24(data).to_bytes(3, "big")).decode()
    kind = "PGP PUBLIC KEY BLOCK"
    return "\n".join(
        [f"-----BEGIN {kind}-----", "", *lines, f"={check}", f"-----END {kind}-----\n"]
    )


def _decoded(armor: bytes) -> bytes:
    """What an armor holds; headers end at the first empty line, a checksum begins with `=`."""
    lines = [line.strip() for line in armor.splitlines()]
    body = lines[lines.index(b"") :] if b"" in lines else lines
    text = b"".join(line for line in body if not line.startswith(b"="))
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("holds a damaged OpenPGP key") from None


def _split(data: bytes) -> Iterator[Bundle]:
    """The keys in the order of the bytes; what stands before the first belongs to none."""
    try:
        packets = list(_packets(data))
    except ValueError as error:
        raise ValueError(f"holds {_what(data)} ({error})") from None
    except IndexError:
        raise ValueError(f"holds {_what(data)} ({_CUT})") from None
    starts = [number for number, packet in enumerate(packets) if packet[0] in (_SECRET, _PUBLIC)]
    for start, end in zip(starts, [*starts[1:], len(packets)], strict=False):
        tag, begins, body = packets[start]
        stops = packets[end][1] if end < len(packets) else len(data)
        version = body[0] if body else 0
        print_ = "" if tag == _SECRET else _fingerprint(version, body)
        yield Bundle(print_, version, tag == _SECRET, data[begins:stops])


def _what(data: bytes) -> str:
    """Text or a picture is no key; what begins as a key does is a damaged one."""
    begins = (0x94 | n for n in range(3)), (0x98 | n for n in range(3)), (0xC5, 0xC6)
    known = {octet for each in begins for octet in each}
    return "a damaged OpenPGP key" if data[:1] and data[0] in known else "no OpenPGP key"


def _packets(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Tag, place and body of each packet."""
    at = 0
    while at < len(data):
        tag = _tag(data[at])
        header, length = _length(data, at)
        body = data[at + header : at + header + length]
        if len(body) < length:
            raise ValueError(_CUT)
        yield tag, at, body
        at += header + length


def _tag(octet: int) -> int:
    if not octet & 0x80:
        raise ValueError("no packet begins so")
    return octet & 0x3F if octet & 0x40 else octet >> 2 & 0x0F


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Octets of a packet's header, and of its body."""
    octet, first = data[at], data[at + 1]
    if not octet & 0x40:
        size = {0: 1, 1: 2, 2: 4}.get(octet & 0x03)
        if size is None:
            raise ValueError(_PARTIAL)
        return 1 + size, int.from_bytes(data[at + 1 : at + 1 + size], "big")
    if first < 192:
        return 2, first
    if first < 224:
        return 3, ((first - 192) << 8) + data[at + 2] + 192
    if first < 255:
        raise ValueError(_PARTIAL)
    return 6, int.from_bytes(data[at + 2 : at + 6], "big")


def _fingerprint(version: int, body: bytes) -> str:
    if version not in _PRINTS:
        return ""
    name, begin, octets = _PRINTS[version]
    hashed = hashlib.new(name, usedforsecurity=False)
    hashed.update(begin + len(body).to_bytes(octets, "big") + body)
    return hashed.hexdigest().upper()


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for octet in data:
        crc = (crc << 8 & 0xFFFFFF) ^ _CRC_TABLE[crc >> 16 ^ octet]
    return crc


def _crc_entry(octet: int) -> int:
    crc = octet << 16
    for _ in range(8):
        crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    return crc


_CRC_TABLE = tuple(_crc_entry(octet) for octet in range(256))
