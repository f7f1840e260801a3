"""One connection of the guest joined to one of the host, with back-pressure both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import asyncssh


class Traffic(Protocol):
    """Where a link counts its bytes."""

    sent: int
    received: int
    last_error: str


class WriteGate:
    """Says whether the channel takes more bytes, so that a guest who does not read costs nothing.

    asyncssh bounds each SSH channel by the window that the other side grants, and a hostile guest
    grants 4 GiB; the transport below does the bounding here, for all channels together.
    """

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._links: set[Link] = set()

    def add(self, link: Link) -> None:
        """Let a link follow the gate."""
        self._links.add(link)
        if not self._open.is_set():
            link.block("connection")

    def discard(self, link: Link) -> None:
        """Forget a link."""
        self._links.discard(link)

    def shut(self) -> None:
        """Stop everything that writes to the channel."""
        self._open.clear()
        for link in self._links:
            link.block("connection")

    def reopen(self) -> None:
        """Let them write again."""
        self._open.set()
        for link in self._links:
            link.unblock("connection")

    async def wait(self) -> None:
        """Return once the channel takes more bytes."""
        await self._open.wait()


class Link:
    """One connection of the guest joined to one connection of the host."""

    def __init__(self, counters: Traffic, forget: Callable[[Link], None]) -> None:
        self.counters = counters
        self.guest = GuestSide(self)
        self.server = ServerSide(self)
        self.channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self.transport: asyncio.Transport | None = None
        self.eofs: set[str] = set()
        self._forget = forget
        # The server may speak before the guest's end is open.
        self._blocks = {"starting"}
        self._alive: set[str] = set()
        self._closed = False

    def block(self, reason: str) -> None:
        """Stop reading from the server."""
        self._blocks.add(reason)
        if self.transport is not None:
            self.transport.pause_reading()

    def unblock(self, reason: str) -> None:
        """Read from the server again unless another reason stands against it."""
        self._blocks.discard(reason)
        # A transport that is resumed after its end reports that end a second time.
        if self.transport is not None and not self._blocks and "server" not in self.eofs:
            self.transport.resume_reading()

    def made(self, side: str) -> None:
        """One side is connected, perhaps after the link was given up."""
        self._alive.add(side)
        if self._closed:
            self._close_sides(hard=True)

    def lost(self, side: str, *, hard: bool) -> None:
        """One side is gone, so the other goes too."""
        self._alive.discard(side)
        self.close(hard=hard)
        self._forget_if_over()

    def ended(self, side: str) -> None:
        """One side will send nothing more; after both the link is done."""
        self.eofs.add(side)
        if len(self.eofs) == 2:
            self.close()

    def close(self, *, hard: bool = False) -> None:
        """End both connections; `hard` drops what is not yet written to the server."""
        if not self._closed:
            self._closed = True
            self._close_sides(hard=hard)
            self._forget_if_over()

    def _close_sides(self, *, hard: bool) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.transport is not None:
            if hard:
                self.transport.abort()
            else:
                self.transport.close()

    def _forget_if_over(self) -> None:
        # A side that lingers with unwritten bytes keeps its place in the count.
        if self._closed and not self._alive:
            self._forget(self)


class GuestSide(asyncssh.SSHTCPSession[bytes]):
    """The SSH channel's half of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        """The guest's end is open: let the server speak."""
        self._link.channel = chan
        self._link.made("guest")
        self._link.unblock("starting")

    def connection_lost(self, exc: Exception | None) -> None:
        """The guest's end is gone."""
        self._link.lost("guest", hard=exc is not None)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass bytes on to the server."""
        self._link.counters.sent += len(data)
        if self._link.transport is not None:
            self._link.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; the other direction stays open."""
        transport = self._link.transport
        if transport is not None and not transport.is_closing():
            try:
                transport.write_eof()
            except OSError:
                # The server hung up in the same moment (ENOTCONN, shutdown(2)). Raised on, this
                # would end the whole SSH connection.
                self._link.close(hard=True)
        self._link.ended("guest")
        return True

    def pause_writing(self) -> None:
        """The guest does not read fast enough."""
        self._link.block("channel")

    def resume_writing(self) -> None:
        """The guest reads again."""
        self._link.unblock("channel")


class ServerSide(asyncio.Protocol):
    """The TCP connection's half of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server's end is open, the guest's not yet."""
        self._link.transport = cast(asyncio.Transport, transport)
        self._link.block("starting")
        self._link.made("server")

    def connection_lost(self, exc: Exception | None) -> None:
        """The server's end is gone."""
        if exc is not None:
            self._link.counters.last_error = f"connection lost ({type(exc).__name__})"
        self._link.lost("server", hard=False)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on to the guest."""
        self._link.counters.received += len(data)
        channel = self._link.channel
        if channel is not None and not channel.is_closing():
            channel.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; the other direction stays open."""
        channel = self._link.channel
        if channel is not None and not channel.is_closing():
            channel.write_eof()
        self._link.ended("server")
        return True

    def pause_writing(self) -> None:
        """The server does not read fast enough."""
        if self._link.channel is not None:
            self._link.channel.pause_reading()

    def resume_writing(self) -> None:
        """The server reads again."""
        if self._link.channel is not None:
            self._link.channel.resume_reading()
