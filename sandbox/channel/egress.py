"""The only way out of a machine: from a listener in the guest to one server named by the profile.

The destination never comes from the guest. Each listener is bound to its forward when it is asked
for, asyncssh refuses an open that names no such listener, and what the guest says about the
origin of a connection is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import asyncssh

from sandbox.channel.config import ForwardSpec
from sandbox.channel.link import GuestSide, Link, WriteGate
from sandbox.channel.status import ForwardStatus

MAX_CONNECTIONS = 64
MAX_CONNECTIONS_TOTAL = 256
CONNECT_TIMEOUT_S = 20.0
LISTEN_TRIES = 5
LISTEN_PAUSE_S = 0.5
# Per connection; the guest may make the host keep this much while a server does not read.
WINDOW = 1024 * 1024
PACKET = 32 * 1024

log = logging.getLogger("mailbox.warden")


class Counters:
    """What one forward has done so far; it outlives the channel that did it."""

    def __init__(self, spec: ForwardSpec) -> None:
        self.spec = spec
        self.open = 0
        self.connections = 0
        self.refused = 0
        self.sent = 0
        self.received = 0
        self.last_error = ""

    def fail(self, error: str) -> None:
        """Count a refusal; the log gets a line only when the reason is a new one."""
        self.refused += 1
        if error != self.last_error:
            log.warning("forward %s: %s", self.spec.name, error)
        self.last_error = error

    def status(self) -> ForwardStatus:
        """Return the counters as they are now."""
        return ForwardStatus(
            self.spec.name,
            self.spec.listen,
            self.spec.port,
            self.open,
            self.connections,
            self.refused,
            self.sent,
            self.received,
            self.last_error,
        )


class Egress:
    """The forwards of one machine on one channel."""

    def __init__(self, counters: Iterable[Counters], gate: WriteGate) -> None:
        self._counters = tuple(counters)
        self._gate = gate
        self._links: set[Link] = set()

    async def listen(self, connection: asyncssh.SSHClientConnection) -> None:
        """Ask the guest for every listener; asyncssh.ChannelListenError if it refuses one."""
        await asyncio.gather(*(self._listen(connection, item) for item in self._counters))

    async def _listen(self, connection: asyncssh.SSHClientConnection, counters: Counters) -> None:
        async def accept(*_untrusted_origin: object) -> GuestSide:
            return await self._accept(counters)

        for left in reversed(range(LISTEN_TRIES)):
            try:
                await _create(connection, counters.spec, accept)
                return
            except asyncssh.ChannelListenError:
                # The guest's previous sshd may hold the address for a moment longer.
                if not left:
                    counters.fail("the guest refuses the listener")
                    raise
                await asyncio.sleep(LISTEN_PAUSE_S)

    async def _accept(self, counters: Counters) -> GuestSide:
        if counters.open >= MAX_CONNECTIONS or len(self._links) >= MAX_CONNECTIONS_TOTAL:
            counters.fail("too many connections")
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
        link = Link(counters, lambda gone: self._forget(gone, counters))
        self._links.add(link)
        counters.open += 1
        try:
            await _connect(link, counters.spec)
        except BaseException as error:
            link.close(hard=True)
            # ValueError is what a name that cannot be encoded for the resolver gives.
            if not isinstance(error, OSError | ValueError):
                raise
            counters.fail(f"cannot connect ({_short(error)})")
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "no answer") from None
        counters.connections += 1
        self._gate.add(link)
        return link.guest

    def _forget(self, link: Link, counters: Counters) -> None:
        if link in self._links:
            self._links.discard(link)
            self._gate.discard(link)
            counters.open -= 1

    def close(self) -> None:
        """End every connection, as the channel is gone."""
        for link in tuple(self._links):
            link.close(hard=True)


async def _create(
    connection: asyncssh.SSHClientConnection,
    spec: ForwardSpec,
    accept: Callable[..., Awaitable[GuestSide]],
) -> None:
    sizes = {"window": WINDOW, "max_pktsize": PACKET}
    if spec.local:
        # asyncssh asks the same of a session on a UNIX socket as of one on a TCP port.
        await connection.create_unix_server(cast(Any, accept), spec.listen, **sizes)
    else:
        await connection.create_server(accept, spec.listen, spec.port, **sizes)


async def _connect(link: Link, spec: ForwardSpec) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        if spec.local:
            await loop.create_unix_connection(lambda: link.server, spec.connect_host)
        else:
            await loop.create_connection(lambda: link.server, spec.connect_host, spec.connect_port)


def _short(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror) if strerror else type(error).__name__
