"""A smartcard in software: OpenPGP card 3.4 with RSA keys, behind a reader of pcscd's.

GnuPG's scdaemon, pcscd and its driver for readers on a socket (vpcd, of vsmartcard) are the real
ones; the card itself follows the specification "Functional Specification of the OpenPGP application
on ISO Smart Card Operating Systems", version 3.4.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DRIVER = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
APPLICATION = bytes.fromhex("D27600012401")
# Version 3.4, a number of the range that anybody may use.
IDENTIFIER = APPLICATION + bytes.fromhex("0304FF0012345678 0000")
# Of a card that speaks T=1 (the one of ZeitControl's cards).
ANSWER_TO_RESET = bytes.fromhex("3BDA18FF81B1FE751F030031C573C001400090000C")
# Commands may come in pieces, and are never longer than 255 bytes.
HISTORICAL = bytes.fromhex("0031F573C00180059000")
# Keys can be imported; no secure messaging, no challenge, no certificate.
CAPABILITIES = bytes.fromhex("20000000000000FF0000")
RSA_2048 = bytes.fromhex("010800002000")
SLOTS = {0xB6: 0, 0xB8: 1, 0xA4: 2}  # sign, decrypt, authenticate

FOR_SIGNING, FOR_DECRYPTING, ADMIN = 0x81, 0x82, 0x83  # what a PIN is verified for
OK, NOT_ALLOWED = 0x9000, 0x6982
NOT_FOUND, NO_SUCH_OBJECT, NO_SUCH_COMMAND, BLOCKED = 0x6A82, 0x6A88, 0x6D00, 0x6983


@dataclass(frozen=True)
class Rsa:
    """A private key as it is imported."""

    e: int
    p: int
    q: int

    @property
    def n(self) -> int:
        return self.p * self.q

    def raw(self, data: bytes) -> bytes:
        d = pow(self.e, -1, math.lcm(self.p - 1, self.q - 1))
        return pow(int.from_bytes(data, "big"), d, self.n).to_bytes(256, "big")


class RefusedError(Exception):
    """The status word of a command that is not done."""

    def __init__(self, status: int) -> None:
        super().__init__(hex(status))
        self.status = status


@dataclass
class Card:
    """What the card holds; `pin` opens signing and decrypting, `admin` opens its contents."""

    pin: str
    admin: str
    keys: dict[int, Rsa] = field(default_factory=dict)
    objects: dict[int, bytes] = field(default_factory=dict)
    verified: set[int] = field(default_factory=set)
    tries: dict[int, int] = field(default_factory=lambda: {1: 3, 3: 3})
    commands: list[int] = field(default_factory=list)
    _begun: bytes = b""
    _rest: bytes = b""

    def reset(self) -> None:
        self.verified.clear()
        self._begun = self._rest = b""

    def transmit(self, command: bytes) -> bytes:
        """Answer one command (ISO 7816-4)."""
        head, data, expected = _parsed(command)
        if head[1] != 0xC0:
            self._rest = b""
        if head[0] & 0x10:
            self._begun += data
            return OK.to_bytes(2, "big")
        data, self._begun = self._begun + data, b""
        try:
            answer = self._do(head, data)
        except RefusedError as refused:
            return refused.status.to_bytes(2, "big")
        part, self._rest = answer[:expected], answer[expected:]
        more = 0x6100 | min(len(self._rest), 0xFF) if self._rest else OK
        return part + more.to_bytes(2, "big")

    def _do(self, head: bytes, data: bytes) -> bytes:
        instruction, p1, p2 = head[1:]
        self.commands.append(instruction)
        match instruction, p1 << 8 | p2:
            case 0xA4, _:
                if not (data and IDENTIFIER.startswith(data[: len(IDENTIFIER)])):
                    raise RefusedError(NOT_FOUND)
                return b""
            case 0xC0, _:
                return self._rest
            case 0xCA, tag:
                return self._object(tag)
            case 0xDA, tag:
                self._need(ADMIN)
                self.objects[tag] = data
                return b""
            case 0xDB, 0x3FFF:
                self._need(ADMIN)
                self._take(data)
                return b""
            case 0x20, which:
                return self._verify(which, data)
            case 0x47, 0x8100:
                return self._public(SLOTS[data[0]])
            case 0x2A, 0x9E9A:
                self._need(FOR_SIGNING)
                padded = b"\0\1" + b"\xff" * (253 - len(data)) + b"\0" + data
                return self._key(0).raw(padded)
            case 0x2A, 0x8086:
                self._need(FOR_DECRYPTING)
                plain = self._key(1).raw(data[1:])
                return plain[plain.index(0, 2) + 1 :]
        raise RefusedError(NO_SUCH_COMMAND)

    def _need(self, which: int) -> None:
        if which not in self.verified:
            raise RefusedError(NOT_ALLOWED)

    def _verify(self, which: int, data: bytes) -> bytes:
        admin = which == ADMIN
        counter = 3 if admin else 1
        if not data:
            if which in self.verified:
                return b""
            raise RefusedError(0x63C0 | self.tries[counter])
        if not self.tries[counter]:
            raise RefusedError(BLOCKED)
        if data.decode(errors="replace") != (self.admin if admin else self.pin):
            self.tries[counter] -= 1
            self.verified.discard(which)
            raise RefusedError(0x63C0 | self.tries[counter])
        self.tries[counter] = 3
        self.verified.add(which)
        return b""

    def _key(self, slot: int) -> Rsa:
        if slot not in self.keys:
            raise RefusedError(NO_SUCH_OBJECT)
        return self.keys[slot]

    def _public(self, slot: int) -> bytes:
        key = self._key(slot)
        return tlv(0x7F49, tlv(0x81, key.n.to_bytes(256, "big")) + tlv(0x82, b"\1\0\1"))

    def _object(self, tag: int) -> bytes:
        tries = bytes((self.tries[1], 0, self.tries[3]))
        simple = {
            0x4F: IDENTIFIER,
            0x5F52: HISTORICAL,
            0xC0: CAPABILITIES,
            **dict.fromkeys((0xC1, 0xC2, 0xC3), RSA_2048),
            0xC4: b"\1\x20\x20\x20" + tries,  # one PIN is enough for many signatures
            0xC5: self._of_each(0xC7, 20),
            0xC6: self._of_each(0xCA, 20),
            0xCD: self._of_each(0xCE, 4),
            0x93: bytes(3),
        }
        if tag == 0x6E:
            inner = b"".join(tlv(each, simple[each]) for each in range(0xC0, 0xC7))
            inner += tlv(0xCD, simple[0xCD])
            return tlv(0x6E, tlv(0x4F, IDENTIFIER) + tlv(0x5F52, HISTORICAL) + tlv(0x73, inner))
        if tag == 0x65:
            return tlv(0x65, tlv(0x5B, b"") + tlv(0x5F2D, b"de") + tlv(0x5F35, b"9"))
        if tag == 0x7A:
            return tlv(0x7A, tlv(0x93, simple[0x93]))
        if tag in (0x5E, 0x5F50):
            return self.objects.get(tag, b"")
        if tag not in simple:
            raise RefusedError(NO_SUCH_OBJECT)
        return simple[tag]

    def _of_each(self, first: int, size: int) -> bytes:
        """What was written of each of the three keys, one behind the other."""
        return b"".join(self.objects.get(first + slot, bytes(size)) for slot in range(3))

    def _take(self, data: bytes) -> None:
        """The extended header list of a key (4.4.3.12)."""
        ((_, inner),) = parse(data)
        parts = dict(parse(inner))
        slot = next(SLOTS[tag] for tag in parts if tag in SLOTS)
        values, place = {}, 0
        for tag, size in _sizes(parts[0x7F48]):
            values[tag] = int.from_bytes(parts[0x5F48][place : place + size], "big")
            place += size
        self.keys[slot] = Rsa(values[0x91], values[0x92], values[0x93])


def tlv(tag: int, value: bytes) -> bytes:
    """A BER-TLV object."""
    size = len(value)
    count = (size.bit_length() + 7) // 8
    length = bytes((size,)) if size < 0x80 else bytes((0x80 | count,)) + size.to_bytes(count, "big")
    return tag.to_bytes(2 if tag > 0xFF else 1, "big") + length + value


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag and length at a place, and where the value begins."""
    tag, at = data[at], at + 1
    if tag & 0x1F == 0x1F:
        tag, at = tag << 8 | data[at], at + 1
    size, at = data[at], at + 1
    if size > 0x80:
        count = size & 0x7F
        size, at = int.from_bytes(data[at : at + count], "big"), at + count
    return tag, size, at


def parse(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The BER-TLV objects in these bytes."""
    at = 0
    while at < len(data):
        tag, size, at = _header(data, at)
        yield tag, data[at : at + size]
        at += size


def _sizes(template: bytes) -> Iterator[tuple[int, int]]:
    """Tags and lengths, whose values are elsewhere."""
    at = 0
    while at < len(template):
        tag, size, at = _header(template, at)
        yield tag, size


def _parsed(command: bytes) -> tuple[bytes, bytes, int]:
    """The head of a short command, its data, and how long the answer may be."""
    head, rest = command[:4], command[4:]
    if len(rest) < 2:
        return head, b"", (rest[0] or 256) if rest else 256
    size = rest[0]
    after = rest[1 + size :]
    return head, rest[1 : 1 + size], (after[0] or 256) if after else 256


class Reader:
    """A reader with a slot for a card, and the daemon that programs reach it by.

    All of it is in namespaces of its own: vpcd listens on every address.
    """

    def __init__(self, *, pin: str, admin: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pcsc-"))
        self.socket = self.folder / "run" / "pcscd.comm"
        (self.folder / "run").mkdir()
        (self.folder / "conf").mkdir()
        (self.folder / "conf" / "vpcd").write_text(
            'FRIENDLYNAME "Virtual PCD"\n'
            f"DEVICENAME /dev/null:0x{_PORT:X}\n"
            f"LIBPATH {DRIVER}\n"
            f"CHANNELID 0x{_PORT:X}\n"
        )
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*_NAMESPACE, "sh", "-euc", _SCRIPT, "sh", self.folder, sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
            )
        self._tell({"pin": pin, "admin": admin})

    def insert(self) -> None:
        self._tell("insert")

    def remove(self) -> None:
        self._tell("remove")

    def commands(self) -> list[int]:
        """The instructions that the card was given, and forget them."""
        return list(self._tell("commands"))

    def _tell(self, what: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


_PORT = 35963
_NAMESPACE = ("unshare", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child")
_SCRIPT = """
mount -t tmpfs tmpfs /run
mkdir /run/pcscd
mount --bind "$1/run" /run/pcscd
ip link set lo up
# There is no polkit in here; where pcscd asks it, it has a switch not to.
polkit=$(pcscd --help 2>&1 | grep -o -e --disable-polkit || true)
pcscd --foreground $polkit --config "$1/conf" >&2 &
exec "$2" "$3"
"""


class Slot:
    """The card's side of the reader."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._line: socket.socket | None = None

    def insert(self) -> None:
        deadline = time.monotonic() + 20
        while self._line is None:
            try:
                self._line = socket.create_connection(("127.0.0.1", _PORT))
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        threading.Thread(target=self._talk, args=(self._line,), daemon=True).start()

    def remove(self) -> None:
        if self._line is not None:
            self._line.shutdown(socket.SHUT_RDWR)
            self._line = None

    def _talk(self, line: socket.socket) -> None:
        with line, line.makefile("rwb") as stream:
            while size := stream.read(2):
                message = stream.read(int.from_bytes(size, "big"))
                if len(message) != 1:
                    answer = self._card.transmit(message)
                elif message[0] == _GIVE_ATR:
                    answer = ANSWER_TO_RESET
                else:  # off, on, reset
                    self._card.reset()
                    continue
                stream.write(len(answer).to_bytes(2, "big") + answer)
                stream.flush()


_GIVE_ATR = 4


def main() -> None:
    """Hold a card, and do what is said on standard input."""
    card = Card(**json.loads(sys.stdin.readline()))
    print("true", flush=True)
    slot = Slot(card)
    for line in sys.stdin:
        answer: object = True
        match json.loads(line):
            case "insert":
                slot.insert()
            case "remove":
                slot.remove()
            case "commands":
                answer = card.commands.copy()
                card.commands.clear()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
