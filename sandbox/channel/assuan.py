"""What a guest may ask of a key that stays on the host: a small Assuan server, as a state machine.

No byte of the guest reaches gpg-agent by itself. The guest's GnuPG speaks to this server; it
answers what it can and turns the two operations there are into checked values, `Sign` and
`Decrypt`. All else is refused. The protocol: libassuan manual, "Server responses"; the commands:
GnuPG 2.2 to 2.4, g10/call-agent.c and common/asshelp.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandbox.channel.sexp import SexpError, check_ciphertext

LINE_LIMIT = 1000
CIPHERTEXT_LIMIT = 4096
RESULT_LIMIT = 16 * 1024
COMMAND_LIMIT = 20_000
BUFFER_LIMIT = 64 * 1024

# gpg-error(1): the source gpg-agent (4) and a code.
_SOURCE = 4 << 24
NO_SECKEY = 17
NO_DATA = 58
TIMEOUT = 62
NO_AGENT = 77
NO_PINENTRY = 85
PINENTRY = 86
CANCELED = 99
CARD_REMOVED = 110
NO_CARD = 112
NOT_CONFIRMED = 114
NO_CARD_DAEMON = 119
FORBIDDEN = 251
UNKNOWN_COMMAND = 275
TOO_LARGE = 67
PARAMETER = 280
_WORDS = {
    NO_SECKEY: "No secret key",
    NO_DATA: "No data",
    TIMEOUT: "Timeout",
    NO_AGENT: "No agent running",
    NO_PINENTRY: "No pinentry",
    PINENTRY: "pinentry error",
    CANCELED: "Operation cancelled",
    CARD_REMOVED: "Card removed",
    NO_CARD: "Card not present",
    NOT_CONFIRMED: "Not confirmed",
    NO_CARD_DAEMON: "No SmartCard daemon",
    FORBIDDEN: "Forbidden",
    UNKNOWN_COMMAND: "Unknown IPC command",
    TOO_LARGE: "Provided object is too large",
    PARAMETER: "IPC parameter error",
}

# OpenPGP numbers (RFC 9580, 9.5) of the digests that may be signed, and their bytes.
DIGESTS = {8: 32, 9: 48, 10: 64, 11: 28}
_ESCAPED = re.compile(rb"[%\r\n]")
_GRIP = re.compile(rb"[0-9A-F]{40}\Z")
_HASH = re.compile(rb"([0-9]{1,2}) +([0-9A-Fa-f]{1,128})\Z")
_NONCE = re.compile(rb"--cache-nonce=[0-9A-Fa-f]{1,64}\Z|(?:-- )?[0-9A-Fa-f]{1,64}\Z")
# Told by gpg about its own terminal and locale; swallowed, for the agent needs none of them.
_OPTIONS = {
    *(b"ttyname", b"ttytype", b"display", b"xauthority", b"lc-ctype", b"lc-messages"),
    *(b"putenv", b"allow-pinentry-notify", b"agent-awareness", b"use-cache-for-signing"),
}


@dataclass(frozen=True)
class Reply:
    """Bytes for the guest."""

    data: bytes


@dataclass(frozen=True)
class Sign:
    """The guest wants a digest signed; `algorithm` is OpenPGP's number of it."""

    grip: str
    algorithm: int
    digest: bytes = field(repr=False)


@dataclass(frozen=True)
class Decrypt:
    """The guest wants a session key unwrapped; `ciphertext` is a checked S-expression."""

    grip: str
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True)
class Refused:
    """The guest asked for something that no mail client needs: `what` is clean text."""

    what: str


@dataclass(frozen=True)
class HangUp:
    """The connection ends; `reason` is clean text."""

    reason: str


Event = Reply | Sign | Decrypt | Refused | HangUp


class Session:
    """One connection of the guest.

    Feed it bytes; it yields events. After `Sign` or `Decrypt` it takes no further line until
    `succeed` or `fail` was called; bytes that come meanwhile wait, up to a bound.
    """

    def __init__(self, sign: Iterable[str], decrypt: Iterable[str], version: str) -> None:
        self._sign = frozenset(grip.encode("ascii") for grip in sign)
        self._decrypt = frozenset(grip.encode("ascii") for grip in decrypt)
        self._version = version.encode("ascii")
        self._buffer = bytearray()
        self._busy = False
        self._over = False
        self._commands = 0
        self._forget()
        self._inquired: bytearray | None = None

    @property
    def busy(self) -> bool:
        """Whether an operation is under way: read no more until it has ended."""
        return self._busy

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return self._over

    def greeting(self) -> bytes:
        """What the server says first."""
        return b"OK Pleased to meet you\n"

    def feed(self, untrusted_data: bytes) -> list[Event]:
        """Take bytes of the guest."""
        if self._over:
            return []
        self._buffer += untrusted_data
        return self._work()

    def succeed(self, result: bytes, status: bytes = b"") -> list[Event]:
        """End the operation with the agent's result; `status` is its S line, if any."""
        if len(result) > RESULT_LIMIT:
            return self.fail(TOO_LARGE)
        line = b"S " + status + b"\n" if status else b""
        return self._end_operation(line + data_lines(result) + b"OK\n")

    def fail(self, code: int) -> list[Event]:
        """End the operation with an error."""
        return self._end_operation(error_line(code))

    def _end_operation(self, data: bytes) -> list[Event]:
        if not self._busy:
            raise RuntimeError("no operation is under way")
        self._busy = False
        self._forget()
        return [Reply(data), *self._work()]

    def _forget(self) -> None:
        self._key = b""
        self._digest: tuple[int, bytes] | None = None

    def _work(self) -> list[Event]:
        events: list[Event] = []
        while not self._busy and not self._over:
            end = self._buffer.find(b"\n")
            if end > LINE_LIMIT or (end < 0 and len(self._buffer) > LINE_LIMIT):
                return [*events, *self._hang_up("a line is too long")]
            if end < 0:
                break
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            events += self._line(line)
        if len(self._buffer) > BUFFER_LIMIT:
            events += self._hang_up("too much at once")
        return events

    def _hang_up(self, reason: str) -> list[Event]:
        self._over = True
        self._busy = False
        self._buffer.clear()
        self._forget()
        return [HangUp(reason)]

    def _line(self, line: bytes) -> list[Event]:
        self._commands += 1
        if self._commands > COMMAND_LIMIT:
            return self._hang_up("too many commands")
        if self._inquired is not None:
            return self._data_line(line, self._inquired)
        if not line or line.startswith(b"#"):
            return []
        word, _, rest = line.partition(b" ")
        handler = _COMMANDS.get(word.upper())
        if handler is None:
            return [Refused(_clean(word)), Reply(error_line(FORBIDDEN))]
        return handler(self, rest.strip(b" "))

    def _data_line(self, line: bytes, gathered: bytearray) -> list[Event]:
        if line.startswith(b"D "):
            try:
                gathered += unescape(line[2:])
            except ValueError:
                return self._hang_up("malformed data")
            return self._hang_up("too much data") if len(gathered) > CIPHERTEXT_LIMIT else []
        self._inquired = None
        if line == b"END":
            return self._start_decrypt(bytes(gathered))
        if line in (b"CAN", b"CANCEL"):
            return [Reply(error_line(CANCELED))]
        return self._hang_up("a command in the middle of data")

    def _start_decrypt(self, untrusted_ciphertext: bytes) -> list[Event]:
        try:
            ciphertext = check_ciphertext(untrusted_ciphertext)
        except SexpError:
            return [Refused("PKDECRYPT of malformed data"), Reply(error_line(PARAMETER))]
        self._busy = True
        return [Decrypt(self._key.decode("ascii"), ciphertext)]

    # -- commands ---------------------------------------------------------------------------

    def _nop(self, _rest: bytes) -> list[Event]:
        return [Reply(b"OK\n")]

    def _bye(self, _rest: bytes) -> list[Event]:
        self._over = True
        return [Reply(b"OK closing connection\n"), HangUp("")]

    def _reset(self, _rest: bytes) -> list[Event]:
        self._forget()
        return [Reply(b"OK\n")]

    def _option(self, rest: bytes) -> list[Event]:
        name = re.split(rb"[ =]", rest.removeprefix(b"--"), maxsplit=1)[0]
        if name in _OPTIONS:
            return [Reply(b"OK\n")]
        return [Refused(f"OPTION {_clean(name)}"), Reply(error_line(FORBIDDEN))]

    def _getinfo(self, rest: bytes) -> list[Event]:
        if rest == b"version":
            return [Reply(b"D " + self._version + b"\nOK\n")]
        # Yes, this is restricted: gpg then takes a refused option for what it is (asshelp.c).
        return [Reply(b"OK\n" if rest == b"restricted" else error_line(FORBIDDEN))]

    def _havekey(self, rest: bytes) -> list[Event]:
        known = self._sign | self._decrypt
        if re.fullmatch(rb"--list(=[0-9]{1,6})?", rest):
            grips = b"".join(bytes.fromhex(grip.decode()) for grip in sorted(known))
            return [Reply(data_lines(grips) + b"OK\n" if grips else error_line(NO_SECKEY))]
        wanted = rest.split()
        if not wanted or not all(map(_GRIP.match, wanted)):
            return [Reply(error_line(PARAMETER))]
        return [Reply(b"OK\n" if known & set(wanted) else error_line(NO_SECKEY))]

    def _keyinfo(self, rest: bytes) -> list[Event]:
        if rest not in self._sign | self._decrypt:
            code = NO_SECKEY if _GRIP.match(rest) else FORBIDDEN
            return [Reply(error_line(code))]
        # The type D: on the disk; protected; all else is not the guest's business (HELP KEYINFO).
        return [Reply(b"S KEYINFO " + rest + b" D - - - P - - -\nOK\n")]

    def _no_card(self, _rest: bytes) -> list[Event]:
        # gpg looks for a card before it decrypts; it goes on without one.
        return [Reply(error_line(NO_CARD_DAEMON))]

    def _choose(self, grip: bytes) -> list[Event]:
        self._forget()
        if not _GRIP.match(grip):
            return [Reply(error_line(PARAMETER))]
        if grip not in self._sign | self._decrypt:
            return [Refused("another key"), Reply(error_line(NO_SECKEY))]
        self._key = grip
        return [Reply(b"OK\n")]

    def _sethash(self, rest: bytes) -> list[Event]:
        match = _HASH.match(rest)
        algorithm, text = (int(match[1]), match[2]) if match else (0, b"")
        if len(text) != 2 * DIGESTS.get(algorithm, 0) or not text:
            return [Refused("SETHASH of another digest"), Reply(error_line(PARAMETER))]
        self._digest = (algorithm, bytes.fromhex(text.decode("ascii")))
        return [Reply(b"OK\n")]

    def _pksign(self, rest: bytes) -> list[Event]:
        if rest and not _NONCE.match(rest):
            return [Refused("PKSIGN with options"), Reply(error_line(PARAMETER))]
        if self._digest is None or self._key not in self._sign:
            return [Refused("PKSIGN without its key"), Reply(error_line(NO_SECKEY))]
        algorithm, digest = self._digest
        self._busy = True
        return [Sign(self._key.decode("ascii"), algorithm, digest)]

    def _pkdecrypt(self, rest: bytes) -> list[Event]:
        if rest:
            return [Refused("PKDECRYPT with options"), Reply(error_line(PARAMETER))]
        if self._key not in self._decrypt:
            return [Refused("PKDECRYPT without its key"), Reply(error_line(NO_SECKEY))]
        self._inquired = bytearray()
        limit = str(CIPHERTEXT_LIMIT).encode()
        return [Reply(b"S INQUIRE_MAXLEN " + limit + b"\nINQUIRE CIPHERTEXT\n")]


_COMMANDS = {
    b"NOP": Session._nop,
    b"BYE": Session._bye,
    b"RESET": Session._reset,
    b"OPTION": Session._option,
    b"GETINFO": Session._getinfo,
    b"HAVEKEY": Session._havekey,
    b"KEYINFO": Session._keyinfo,
    b"SIGKEY": Session._choose,
    b"SETKEY": Session._choose,
    b"SCD": Session._no_card,
    # Words of the guest that no prompt shows: the host says itself what is asked.
    b"SETKEYDESC": Session._nop,
    b"SETHASH": Session._sethash,
    b"PKSIGN": Session._pksign,
    b"PKDECRYPT": Session._pkdecrypt,
}


def error_line(code: int) -> bytes:
    """An ERR line as gpg-agent writes it."""
    words = _WORDS.get(code, "Error")
    return f"ERR {_SOURCE + code} {words} <GPG Agent>\n".encode("ascii")


def data_lines(data: bytes) -> bytes:
    """D lines with the data, escaped; short enough even if every byte is."""
    size = LINE_LIMIT // 3 - 2
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    return b"".join(b"D " + _ESCAPED.sub(_escape, chunk) + b"\n" for chunk in chunks)


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def unescape(data: bytes) -> bytes:
    """The bytes in a D line; ValueError if an escape is none."""
    if re.search(rb"%(?![0-9A-Fa-f]{2})", data):
        raise ValueError("malformed escape")
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), data)


def _clean(untrusted_word: bytes) -> str:
    text = untrusted_word[:32].decode("ascii", "replace")
    return re.sub("[^A-Za-z0-9_-]", "?", text)
