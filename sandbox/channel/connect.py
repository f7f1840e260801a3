"""From a machine's socket to an SSH connection: the hello, then asyncssh on the same bytes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncssh

from sandbox.channel.hello import ReadyParser, encode_hello
from sandbox.channel.link import WriteGate

PEEK = 64 * 1024
# More than this in the way of a slow guest shuts the gate.
WRITE_HIGH = 1024 * 1024
# A machine that is gone is noticed by its socket; this is for one that hangs. An emulated machine
# on a busy computer may well be silent for a minute or two. Often, since emulated machines were
# seen that stood still for just this long (2 of 50 returns), as after a wake-up that their serial
# port has lost: until the next byte comes.
KEEPALIVE_S = 3
KEEPALIVE_MISSES = 100
LOGIN_TIMEOUT_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Channel:
    """An SSH connection into the machine and the gate in front of its transport."""

    connection: asyncssh.SSHClientConnection
    gate: WriteGate


async def open_channel(path: Path, hostname: str, hello_timeout_s: float) -> Channel:
    """Connect, exchange the hello with a fresh key, and log in as root.

    Raises OSError (no socket, nobody there, too late), HelloError or asyncssh.Error.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    tunnel = _Tunnel(sock)
    try:
        await asyncio.get_running_loop().sock_connect(sock, str(path))
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with asyncio.timeout(hello_timeout_s):
            host_key = await _hello(sock, key, hostname)
        async with asyncio.timeout(LOGIN_TIMEOUT_S):
            return Channel(await _log_in(tunnel, key, host_key), tunnel.gate)
    except BaseException:
        tunnel.abort()
        raise


async def _hello(sock: socket.socket, key: asyncssh.SSHKey, hostname: str) -> str:
    public = key.export_public_key().decode("ascii").strip()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, encode_hello(public, time.time(), hostname))
    parser = ReadyParser()
    while parser.host_key is None:
        await _readable(sock)
        # Only the bytes up to the end of the line are taken: what follows is SSH's.
        untrusted_ahead = sock.recv(PEEK, socket.MSG_PEEK)
        if not untrusted_ahead:
            raise ConnectionResetError("the guest hung up")
        sock.recv(parser.feed(untrusted_ahead))
    return parser.host_key


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, lambda: ready.set_result(None) if not ready.done() else None)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


class _Client(asyncssh.SSHClient):
    """Notes why a connection ended, in asyncssh's words and never in the guest's."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Log the kind of the end; a guest's own words stay out of the log."""
        code = getattr(exc, "errno", None) or getattr(exc, "code", None)
        log.info("connection ended: %s%s", type(exc).__name__, "" if code is None else f" {code}")


class _Tunnel:
    """Hands asyncssh a connected socket and keeps hold of the transport under it."""

    def __init__(self, sock: socket.socket) -> None:
        self.gate = WriteGate()
        self._sock = sock
        self._transport: asyncio.Transport | None = None

    async def create_connection(
        self, factory: Callable[[], Any], _host: str, _port: int
    ) -> tuple[Any, Any]:
        """Do what asyncssh asks of a tunnel."""

        def protocol() -> asyncio.Protocol:
            connection = factory()
            # asyncssh leaves these two empty, and its buffer towards the guest without a bound.
            connection.pause_writing = self._shut
            connection.resume_writing = self._reopen
            return cast(asyncio.Protocol, connection)

        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(protocol, sock=self._sock)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        return transport, connection

    def abort(self) -> None:
        """Hang up at whatever point the connection is."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._sock.close()

    def _shut(self) -> None:
        self.gate.shut()
        # A guest that asks for answers and never reads them is not listened to meanwhile.
        if self._transport is not None:
            self._transport.pause_reading()

    def _reopen(self) -> None:
        self.gate.reopen()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


async def _log_in(
    tunnel: _Tunnel, key: asyncssh.SSHKey, host_key: str
) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "machine",
        tunnel=cast(Any, tunnel),
        client_factory=_Client,
        # Nothing of the user's own SSH set-up takes part: no files, no agent, no other key.
        config=None,
        known_hosts=([asyncssh.import_public_key(host_key)], [], []),
        client_keys=[key],
        agent_path=None,
        agent_forwarding=False,
        preferred_auth=["publickey"],
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        username="root",
        server_host_key_algs=["ssh-ed25519"],
        kex_algs=["curve25519-sha256"],
        encryption_algs=["aes128-gcm@openssh.com"],
        compression_algs=["none"],
        x509_trusted_certs=None,
        keepalive_interval=KEEPALIVE_S,
        keepalive_count_max=KEEPALIVE_MISSES,
        login_timeout=LOGIN_TIMEOUT_S,
        send_env=None,
    )
