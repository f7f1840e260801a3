"""One client of the warden's control socket."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from collections.abc import Coroutine, Mapping
from typing import Any

from sandbox.channel.protocol import (
    HEADER_SIZE,
    Frame,
    ProtocolError,
    Request,
    Stream,
    encode_frame,
    encode_json_frame,
    parse_header,
    parse_request,
)

REQUEST_TIMEOUT_S = 10.0
PRESENCE_CHECK_S = 1.0
_CREDENTIALS = struct.Struct("iII")


class PeerGoneError(Exception):
    """The client has hung up."""


class RefusedError(Exception):
    """The warden cannot do what it is asked; the client gets code and text."""

    def __init__(self, code: str, brief: str, details: str = "") -> None:
        super().__init__(brief)
        self.code = code
        self.brief = brief
        self.details = details

    def fields(self) -> dict[str, str]:
        """Return the payload of an error frame."""
        return {"code": self.code, "brief": self.brief, "details": self.details}


class Peer:
    """Reads frames from a client and sends it frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # Two streams of one command share the writer; drain() allows one waiter on old Pythons.
        self._sending = asyncio.Lock()

    def is_ours(self) -> bool:
        """Say whether the kernel names our own user at the other end."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _pid, uid, _gid = _CREDENTIALS.unpack(data)
        return bool(uid == os.geteuid())

    async def read_request(self) -> Request:
        """Return the request line."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return parse_request(await self._reader.readuntil(b"\n"))
        except asyncio.LimitOverrunError as error:
            raise ProtocolError("the request is too long") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise PeerGoneError from error

    async def read_frame(self) -> Frame:
        """Return the next frame; PeerGoneError at the end."""
        try:
            stream, length = parse_header(await self._reader.readexactly(HEADER_SIZE))
            return Frame(stream, await self._reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise PeerGoneError from error

    async def send(self, stream: Stream, payload: bytes = b"") -> None:
        """Send a frame, waiting until the client takes it."""
        await self._send(encode_frame(stream, payload))

    async def send_json(self, stream: Stream, fields: Mapping[str, Any]) -> None:
        """Send a frame with a JSON object."""
        await self._send(encode_json_frame(stream, fields))

    async def _send(self, data: bytes) -> None:
        try:
            async with self._sending:
                self._writer.write(data)
                await self._writer.drain()
        except OSError as error:
            raise PeerGoneError from error

    async def while_present(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something while nothing is read from the client, who may hang up meanwhile."""
        task = asyncio.ensure_future(waiting)
        try:
            while not (await asyncio.wait({task}, timeout=PRESENCE_CHECK_S))[0]:
                if self._has_hung_up():
                    raise PeerGoneError
            task.result()
        finally:
            task.cancel()

    def _has_hung_up(self) -> bool:
        sock: socket.socket = self._writer.get_extra_info("socket")
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
