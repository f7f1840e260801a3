"""What is spoken on the warden's control socket: one request line, then frames both ways.

A frame is one byte that names its stream, four bytes of length (big endian), the payload.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.channel.strict_json import StrictJsonError, parse_object

MAX_REQUEST = 1024 * 1024
MAX_FRAME = 1024 * 1024
MAX_STATE = 16 * 1024 * 1024
MAX_DEADLINE_S = 24 * 3600.0
# The guest's shell gets the command as one argument, and Linux bounds one argument to 128 KiB.
MAX_COMMAND = 100 * 1024
CHUNK = 64 * 1024
USERS = ("root", "mail-user")

_HEADER = struct.Struct(">BI")
HEADER_SIZE = _HEADER.size


class Stream(enum.IntEnum):
    """The streams of one request."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EVENT = 3
    EXIT = 4
    EOF = 5
    ERROR = 6


class Op(enum.StrEnum):
    """What the warden can be asked."""

    STATUS = "status"
    WAIT = "wait"
    RUN = "run"
    PROVISION = "provision"
    SHUTDOWN = "shutdown"
    STOP = "stop"


class ProtocolError(Exception):
    """The other end of the control socket does not keep to the protocol."""


@dataclass(frozen=True)
class Request:
    """One request; the fields that its operation does not use stay at their defaults."""

    op: Op
    argv: tuple[str, ...] = ()
    user: str = "mail-user"
    deadline_s: float = 0.0


@dataclass(frozen=True)
class Frame:
    """One frame."""

    stream: Stream
    payload: bytes = b""


def encode_request(request: Request) -> bytes:
    """Return the request line."""
    body: dict[str, Any] = {"op": request.op.value}
    if request.op is Op.RUN:
        body |= {"argv": list(request.argv), "user": request.user}
    if request.op in (Op.WAIT, Op.PROVISION, Op.SHUTDOWN):
        body["deadline_s"] = request.deadline_s
    line = json.dumps(body, separators=(",", ":")).encode("ascii") + b"\n"
    if len(line) > MAX_REQUEST:
        raise ProtocolError("the request is too long")
    return line


def parse_request(line: bytes) -> Request:
    """Parse a request line strictly: exactly the keys of its operation."""
    try:
        fields = parse_object(line.rstrip(b"\n"), MAX_REQUEST)
        op = Op(fields.pop("op", ""))
    except (StrictJsonError, ValueError, TypeError) as error:
        raise ProtocolError("the request is not understood") from error
    if op is Op.RUN:
        request = Request(
            op,
            argv=check_argv(fields.pop("argv", None)),
            user=_check_user(fields.pop("user", None)),
        )
    elif op in (Op.WAIT, Op.PROVISION, Op.SHUTDOWN):
        request = Request(op, deadline_s=_check_deadline(fields.pop("deadline_s", None)))
    else:
        request = Request(op)
    if fields:
        raise ProtocolError("the request has unknown keys")
    return request


def check_argv(argv: object) -> tuple[str, ...]:
    """Return the argument vector of a command if a shell can carry it unchanged."""
    if not isinstance(argv, list | tuple) or not argv:
        raise ProtocolError("a command needs at least its name")
    for word in argv:
        if not isinstance(word, str) or "\0" in word:
            raise ProtocolError("a command is a list of texts without NUL")
    try:
        length = sum(len(word.encode("utf-8")) for word in argv)
    except UnicodeEncodeError as error:
        raise ProtocolError("a command is text that UTF-8 can carry") from error
    if length > MAX_COMMAND:
        raise ProtocolError("the command is too long")
    return tuple(argv)


def _check_user(user: object) -> str:
    if user not in USERS:
        raise ProtocolError("the user is neither root nor mail-user")
    return str(user)


def _check_deadline(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError("the deadline is not a number")
    if not 0 <= value <= MAX_DEADLINE_S:
        raise ProtocolError("the deadline is out of bounds")
    return float(value)


def encode_frame(stream: Stream, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    if len(payload) > MAX_FRAME:
        raise ProtocolError("the frame is too long")
    return _HEADER.pack(stream, len(payload)) + payload


def encode_json_frame(stream: Stream, fields: Mapping[str, Any]) -> bytes:
    """Return a frame whose payload is a JSON object."""
    return encode_frame(stream, json.dumps(fields, separators=(",", ":")).encode("ascii"))


def parse_header(header: bytes) -> tuple[Stream, int]:
    """Return stream and length of the frame that follows."""
    number, length = _HEADER.unpack(header)
    try:
        stream = Stream(number)
    except ValueError as error:
        raise ProtocolError("a frame of an unknown stream") from error
    if length > MAX_FRAME:
        raise ProtocolError("the frame is too long")
    return stream, length


def parse_json_payload(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in a frame."""
    try:
        return parse_object(payload, MAX_FRAME)
    except StrictJsonError as error:
        raise ProtocolError("a frame that is not a JSON object") from error


class FrameDecoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Sequence[Frame]:
        """Return the frames that are complete after `data`."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._buffer) < HEADER_SIZE:
            return None
        stream, length = parse_header(bytes(self._buffer[:HEADER_SIZE]))
        end = HEADER_SIZE + length
        if len(self._buffer) < end:
            return None
        frame = Frame(stream, bytes(self._buffer[HEADER_SIZE:end]))
        del self._buffer[:end]
        return frame
