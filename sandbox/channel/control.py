"""The warden's control socket: who may connect, what may be asked."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from sandbox.channel import commands
from sandbox.channel.connect import Channel
from sandbox.channel.daemon import Name
from sandbox.channel.peer import Peer, PeerGoneError, RefusedError
from sandbox.channel.protocol import MAX_REQUEST, Op, ProtocolError, Request, Stream
from sandbox.channel.status import WardenStatus, status_fields

MAX_CLIENTS = 64
log = logging.getLogger("mailbox.warden")


class Warden(Protocol):
    """What the control socket needs of the warden."""

    def status(self) -> WardenStatus:
        """Return state and counters."""

    def channel(self) -> Channel:
        """Return the channel, or raise the RefusedError that says why there is none."""

    async def settled(self, deadline_s: float) -> None:
        """Return once the channel is ready, given up, or the time is over."""

    async def stopped(self) -> None:
        """Stop the warden and return when nothing of it is left but this answer."""


class UnsafeFolderError(Exception):
    """The control socket's folder is open to others."""


def check_folder(folder: Path) -> None:
    """Refuse a folder in which another user could put a socket of his own."""
    try:
        info = folder.lstat()
    except OSError as error:
        raise UnsafeFolderError("the control socket's folder cannot be read") from error
    private = stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()
    if not private or stat.S_IMODE(info.st_mode) & 0o077:
        raise UnsafeFolderError("the control socket's folder is not private to its user")


class ControlServer:
    """Serves the control socket until it is closed."""

    def __init__(self, path: Path, warden: Warden) -> None:
        self._path = path
        self._warden = warden
        self._server: asyncio.Server | None = None
        self._name: Name | None = None
        self._clients: dict[asyncio.Task[None], Op | None] = {}

    async def start(self) -> None:
        """Listen; the caller holds the machine's lock, so a socket that is there is a dead one."""
        check_folder(self._path.parent)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, str(self._path), limit=MAX_REQUEST
            )
        finally:
            os.umask(before)
        self._name = Name(self._path)

    def is_there(self) -> bool:
        """Whether the socket can still be reached."""
        return self._name is not None and self._name.is_ours()

    def close(self) -> None:
        """Take no new clients and remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._name is not None:
            self._name.remove()

    async def end_clients(self, keep: Callable[[Op | None], bool], grace_s: float) -> None:
        """Cut off the clients except those to keep, and give all of them a moment to finish."""
        for task, op in tuple(self._clients.items()):
            if not keep(op):
                task.cancel()
        if self._clients:
            await asyncio.wait(tuple(self._clients), timeout=grace_s)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        task = asyncio.current_task()
        if task is None or not peer.is_ours() or len(self._clients) >= MAX_CLIENTS:
            log.warning("a client of the control socket was refused")
            peer.close()
            return
        self._clients[task] = None
        try:
            with suppress(PeerGoneError, asyncio.CancelledError):
                await self._answer(task, peer)
        finally:
            del self._clients[task]
            peer.close()

    async def _answer(self, task: asyncio.Task[None], peer: Peer) -> None:
        try:
            request = await peer.read_request()
            self._clients[task] = request.op
            await peer.send_json(Stream.EXIT, await self._perform(request, peer))
            if request.op is Op.STOP:
                await self._warden.stopped()
        except RefusedError as refusal:
            await peer.send_json(Stream.ERROR, refusal.fields())
        except ProtocolError as error:
            await peer.send_json(Stream.ERROR, RefusedError("request", str(error)).fields())
        except OSError as error:
            log.error("%s failed: %s", self._clients[task], type(error).__name__)
            failed = RefusedError("warden-failed", "The warden could not do that.")
            await peer.send_json(Stream.ERROR, failed.fields())

    async def _perform(self, request: Request, peer: Peer) -> dict[str, Any]:
        warden = self._warden
        match request.op:
            case Op.STATUS | Op.WAIT:
                await warden.settled(request.deadline_s)
                await peer.send_json(Stream.EVENT, status_fields(warden.status()))
                return {"code": 0}
            case Op.RUN:
                return await commands.run(warden.channel(), peer, request.argv, request.user)
            case Op.PROVISION:
                return await commands.provision(warden.channel(), peer, request.deadline_s)
            case Op.SHUTDOWN:
                return await commands.shut_down(warden.channel(), peer, request.deadline_s)
            case Op.STOP:
                return {"code": 0}
