"""The hello that comes before SSH: one line each way, everything from the guest untrusted.

The host sends `MAILBOX-HELLO {json}`, the guest answers `MAILBOX-READY {json}` with the key
of the SSH server that takes over the same byte stream right after that line.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct

from sandbox.channel.strict_json import StrictJsonError, parse_object

READY_MARKER = b"MAILBOX-READY "
MAX_LINE = 8 * 1024
MAX_NOISE = 1024 * 1024
KEY_TYPE = "ssh-ed25519"
_ED25519_LENGTH = 32


class HelloError(Exception):
    """The guest's half of the hello is not acceptable."""


def encode_hello(client_key: str, time: float, hostname: str) -> bytes:
    """Return the hello; its leading newline ends whatever half line is still in the port."""
    body = {"v": 1, "client_key": client_key, "time": time, "hostname": hostname}
    return b"\nMAILBOX-HELLO " + json.dumps(body, separators=(",", ":")).encode("ascii") + b"\n"


def check_key(untrusted_key: object) -> str:
    """Return `ssh-ed25519 BASE64` in its one canonical form, without a comment."""
    if not isinstance(untrusted_key, str) or not untrusted_key.isascii():
        raise HelloError("the guest's host key is not text")
    fields = untrusted_key.strip("\n").split(" ")
    if len(fields) not in (2, 3) or fields[0] != KEY_TYPE:
        raise HelloError("the guest's host key is not an ed25519 key")
    if _ed25519_blob(fields[1]) is None:
        raise HelloError("the guest's host key is malformed")
    return f"{KEY_TYPE} {fields[1]}"


def _ed25519_blob(text: str) -> bytes | None:
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    name = KEY_TYPE.encode("ascii")
    prefix = struct.pack(">I", len(name)) + name + struct.pack(">I", _ED25519_LENGTH)
    well_formed = blob.startswith(prefix) and len(blob) == len(prefix) + _ED25519_LENGTH
    canonical = base64.b64encode(blob).decode("ascii") == text
    return blob if well_formed and canonical else None


def parse_ready(untrusted_body: bytes) -> str:
    """Return the host key named by the JSON part of a READY line."""
    try:
        fields = parse_object(untrusted_body, MAX_LINE)
    except StrictJsonError as error:
        raise HelloError(f"the guest's ready line is {error}") from error
    if set(fields) != {"v", "host_key"} or fields["v"] != 1 or isinstance(fields["v"], bool):
        raise HelloError("the guest's ready line has another form or version")
    return check_key(fields["host_key"])


class ReadyParser:
    """Finds the READY line in a stream that may hold anything before it."""

    def __init__(self) -> None:
        self.host_key: str | None = None
        self._line = bytearray()
        self._noise = 0

    def feed(self, untrusted_data: bytes) -> int:
        """Take bytes, return how many were used; the rest belongs to SSH once `host_key` is set."""
        used = 0
        while used < len(untrusted_data) and self.host_key is None:
            end = untrusted_data.find(b"\n", used)
            stop = len(untrusted_data) if end < 0 else end
            self._keep(untrusted_data[used:stop])
            used = stop
            if end >= 0:
                used += 1
                self._finish_line()
        return used

    def _keep(self, part: bytes) -> None:
        self._noise += len(part)
        if self._noise > MAX_NOISE:
            raise HelloError("the guest sends noise instead of its ready line")
        self._line += part
        del self._line[: max(0, len(self._line) - MAX_LINE)]

    def _finish_line(self) -> None:
        self._noise += 1
        # Bytes left over from before may stand in front of the marker on the same line.
        start = self._line.rfind(READY_MARKER)
        if start >= 0:
            self.host_key = parse_ready(bytes(self._line[start + len(READY_MARKER) :]))
        self._line.clear()
