"""Commands in the guest: started over SSH, streamed both ways, ended when nobody waits for them."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncssh

from sandbox.channel.connect import Channel
from sandbox.channel.peer import Peer, RefusedError
from sandbox.channel.protocol import CHUNK, MAX_COMMAND, MAX_STATE, Frame, ProtocolError, Stream
from sandbox.channel.untrusted import LineSplitter, clean_text, event_fields, parse_event

GUEST_PROGRAM = "mailbox-guest"
MAX_EVENTS = 4096
MAX_IGNORED = 4096
MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_QUIET_OUTPUT = 1024 * 1024
STDERR_TAIL = 2048
START_TIMEOUT_S = 60.0
TERM_GRACE_S = 3.0
_ENDING_S = 0.5
# setpriv needs no PAM and no login, and gives the user's own HOME and PATH.
_AS_MAIL_USER = (
    *("setpriv", "--reuid=mail-user", "--regid=mail-user", "--init-groups", "--reset-env", "--"),
    *("sh", "-c", 'cd 2>/dev/null || cd /; exec "$@"', "sh"),
)

Process = asyncssh.SSHClientProcess[bytes]
Relay = Callable[[Process], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Ended:
    """How a command ended: by itself with a code, or by a signal."""

    code: int | None
    signal: str

    def fields(self) -> dict[str, Any]:
        """Return the payload of an exit frame."""
        return {"code": self.code} if self.code is not None else {"signal": self.signal}


def command_line(argv: Sequence[str], user: str) -> str:
    """Return the one line that the guest's shell gets; every word stays one word.

    The shell first tells its process id, which is also its process group's, then becomes the
    command. OpenSSH refuses signal requests for root's sessions, so ending needs the number.
    """
    words = (*_AS_MAIL_USER, *argv) if user == "mail-user" else tuple(argv)
    line = f"echo $$ >&2; exec {shlex.join(words)}"
    if len(line.encode("utf-8")) > MAX_COMMAND + 1024:
        raise RefusedError("request", "The command is too long for the machine's shell.")
    return line


async def run(channel: Channel, peer: Peer, argv: Sequence[str], user: str) -> dict[str, Any]:
    """Run a command with its streams at the peer; return the payload of the exit frame."""

    async def relay(process: Process) -> None:
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(_pump(process.stdout, Stream.STDOUT, peer))
            pumps.create_task(_pump(process.stderr, Stream.STDERR, peer))

    ended = await _execute(channel, peer, command_line(argv, user), relay, stdin_limit=None)
    return ended.fields()


async def provision(channel: Channel, peer: Peer, deadline_s: float) -> dict[str, Any]:
    """Send the desired state, relay the checked events; return the payload of the exit frame."""
    events = _EventRelay(peer)

    async def relay(process: Process) -> None:
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(events.relay(process.stdout))
            pumps.create_task(events.keep_tail(process.stderr))

    command = command_line((GUEST_PROGRAM, "provision"), "root")
    try:
        async with asyncio.timeout(deadline_s):
            ended = await _execute(channel, peer, command, relay, stdin_limit=MAX_STATE)
    except TimeoutError:
        raise RefusedError(
            "machine-silent", "The machine did not finish its set-up in time."
        ) from None
    return ended.fields() | {"ignored": events.ignored, "stderr": events.stderr}


async def shut_down(channel: Channel, peer: Peer, deadline_s: float) -> dict[str, Any]:
    """Ask the guest to close its client and power off; a channel that breaks then is a success."""

    events = _EventRelay(peer)

    async def relay(process: Process) -> None:
        process.stdin.write_eof()
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(events.relay(process.stdout))
            pumps.create_task(_discard(process.stderr))

    command = command_line((GUEST_PROGRAM, "shutdown"), "root")
    try:
        async with asyncio.timeout(deadline_s):
            ended = await _execute(channel, peer, command, relay, stdin_limit=0)
            done = ended.code == 0
            if done:
                await channel.connection.wait_closed()
    except TimeoutError:
        done = False
    except RefusedError as refusal:
        done = refusal.code == "channel-lost"
    return {"code": 0, "shut_down": done}


async def _execute(
    channel: Channel, peer: Peer, command: str, relay: Relay, *, stdin_limit: int | None
) -> Ended:
    process = await _start(channel, command)
    pid: list[int] = []

    async def work() -> Ended:
        pid.append(await _read_pid(process))
        await relay(process)
        await process.wait_closed()
        return _ended(process)

    working = asyncio.create_task(work())
    feeding = asyncio.create_task(_feed(peer, process, channel, stdin_limit))
    try:
        await asyncio.wait({working, feeding}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            # Feeding ends only because the peer is gone or misbehaves.
            feeding.result()
        return working.result()
    except (ExceptionGroup, asyncssh.Error, ConnectionError) as error:
        raise _translated(error) from None
    finally:
        ended = working.done() and not working.cancelled() and working.exception() is None
        await _reap(working, feeding)
        if not ended and not channel.connection.is_closed():
            await _end(channel, process, pid[0] if pid else None)


async def _start(channel: Channel, command: str) -> Process:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            return await channel.connection.create_process(command, encoding=None)
    except TimeoutError:
        raise RefusedError("machine-silent", "The machine does not start commands.") from None
    except asyncssh.ChannelOpenError:
        if await _is_lost(channel):
            raise RefusedError("channel-lost", "The channel to the machine broke.") from None
        raise RefusedError("guest-error", "The machine refuses to start another command.") from None
    except (asyncssh.Error, OSError):
        raise RefusedError("channel-lost", "The channel to the machine broke.") from None


async def _is_lost(channel: Channel) -> bool:
    """Whether the connection has ended; one that ends tells its sessions a moment before."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_ENDING_S):
            await channel.connection.wait_closed()
            return True
    return False


async def _read_pid(process: Process) -> int:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            untrusted_line = await process.stderr.readuntil(b"\n")
    except TimeoutError:
        raise RefusedError("machine-silent", "The machine does not start commands.") from None
    except asyncio.IncompleteReadError:
        if process.exit_status is None:
            raise ConnectionResetError from None
        raise RefusedError("guest-error", "The machine's shell does not work.") from None
    digits = untrusted_line.strip()
    if not digits.isdigit() or not 1 < int(digits[:10]) < 2**31:
        raise RefusedError("guest-error", "The machine's shell answers nonsense.")
    return int(digits[:10])


async def _feed(peer: Peer, process: Process, channel: Channel, limit: int | None) -> None:
    """Carry standard input to the command until the peer goes away, which raises."""
    taken = 0
    while True:
        frame = await peer.read_frame()
        taken += len(frame.payload)
        if limit is not None and taken > limit:
            raise ProtocolError("more input than the command takes")
        # A command that has ended or closed its input is no fault of who feeds it.
        with suppress(BrokenPipeError, ConnectionError, asyncssh.Error):
            await _feed_frame(frame, peer, process, channel)


async def _feed_frame(frame: Frame, peer: Peer, process: Process, channel: Channel) -> None:
    if frame.stream is Stream.STDIN:
        process.stdin.write(frame.payload)
        await peer.while_present(process.stdin.drain())
        await peer.while_present(channel.gate.wait())
    elif frame.stream is Stream.EOF:
        process.stdin.write_eof()
    else:
        raise ProtocolError("a frame that a client does not send")


async def _pump(source: asyncssh.SSHReader[bytes], stream: Stream, peer: Peer) -> None:
    while data := await source.read(CHUNK):
        await peer.send(stream, data)


async def _discard(source: asyncssh.SSHReader[bytes]) -> None:
    taken = 0
    while data := await source.read(CHUNK):
        taken += len(data)
        if taken > MAX_QUIET_OUTPUT:
            raise RefusedError("guest-error", "The machine floods its channel.")


class _EventRelay:
    """Checks the output of the guest's program and passes on what is known, up to a bound."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._lines = LineSplitter()
        self._events = 0
        self._unknown = 0
        self._tail = b""

    @property
    def ignored(self) -> int:
        """How many lines were not events."""
        return self._unknown + self._lines.dropped

    @property
    def stderr(self) -> str:
        """The end of what the guest's program complained about, as plain text."""
        return clean_text(self._tail.decode("utf-8", "replace"), STDERR_TAIL)

    async def relay(self, source: asyncssh.SSHReader[bytes]) -> None:
        """Relay until the guest's program closes its output."""
        taken = 0
        while data := await source.read(CHUNK):
            taken += len(data)
            for untrusted_line in self._lines.feed(data):
                await self._relay_line(untrusted_line)
            if taken > MAX_EVENT_BYTES or self.ignored > MAX_IGNORED:
                raise RefusedError("guest-error", "The machine floods its channel.")

    async def _relay_line(self, untrusted_line: bytes) -> None:
        event = parse_event(untrusted_line)
        if event is None:
            self._unknown += 1
            return
        self._events += 1
        if self._events > MAX_EVENTS:
            raise RefusedError("guest-error", "The machine floods its channel.")
        await self._peer.send_json(Stream.EVENT, event_fields(event))

    async def keep_tail(self, source: asyncssh.SSHReader[bytes]) -> None:
        """Keep the last of what comes; it is shown to the user, never logged."""
        while data := await source.read(CHUNK):
            self._tail = (self._tail + data)[-STDERR_TAIL:]


def _ended(process: Process) -> Ended:
    if process.exit_signal is not None:
        return Ended(None, clean_text(process.exit_signal[0], 16))
    if process.exit_status is None or process.exit_status < 0:
        raise ConnectionResetError("the channel broke before the command ended")
    return Ended(process.exit_status, "")


def _translated(error: Exception) -> Exception:
    """Return the first of several failures, a broken connection as what a client is told."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, asyncssh.Error | ConnectionError):
        return RefusedError("channel-lost", "The channel to the machine broke.")
    return error


async def _reap(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _end(channel: Channel, process: Process, pid: int | None) -> None:
    """End a command that still runs, gently first."""
    if pid is not None:
        for name in ("TERM", "KILL"):
            if await _signal(channel, process, pid, name):
                return
    process.close()


async def _signal(channel: Channel, process: Process, pid: int, name: str) -> bool:
    with suppress(TimeoutError, asyncssh.Error, OSError):
        async with asyncio.timeout(TERM_GRACE_S):
            await channel.connection.run(f"kill -{name} -- -{pid}", stdin=asyncssh.DEVNULL)
            # What the dying command still says must not hold up its end.
            await asyncio.gather(
                *(_drop(source) for source in (process.stdout, process.stderr)),
                process.wait_closed(),
            )
            return True
    return False


async def _drop(source: asyncssh.SSHReader[bytes]) -> None:
    while await source.read(CHUNK):
        pass
