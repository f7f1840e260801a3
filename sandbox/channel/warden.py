"""The warden: the host process of one open machine, `python -m sandbox.channel.warden`.

It reads its configuration from standard input, holds the machine's lock, serves the control
socket and keeps the channel. It ends when it is told to, when the machine is gone, or when
nobody can reach it any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress

import asyncssh

from sandbox.channel.config import MAX_CONFIG, WardenConfig, parse_config
from sandbox.channel.connect import Channel, open_channel
from sandbox.channel.control import ControlServer, UnsafeFolderError
from sandbox.channel.daemon import detach, own_lock, release_lock
from sandbox.channel.egress import Counters, Egress
from sandbox.channel.hello import HelloError
from sandbox.channel.peer import RefusedError
from sandbox.channel.protocol import Op
from sandbox.channel.status import State, WardenStatus
from sandbox.channel.untrusted import clean_text
from sandbox.model.errors import MailboxError

EXIT_OK = 0
EXIT_CONFIG = 64
EXIT_SILENT = 69
EXIT_SOCKET = 73
EXIT_RUNNING = 75

# A guest that lost the hello gets another one. Where one was answered before, the guest is up, and
# the hello may have gone to an SSH server that had not yet noticed its end; so the first tries are
# short. A machine that boots under emulation needs the long ones.
HELLO_TRY_S = 45.0
HELLO_AGAIN_S = 3.0
# A machine that was put away waits for the hello (sandbox.lifecycle.suspend), but wakes slowly.
HELLO_RETURN_S = 10.0
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 2.0
# A machine whose socket is refused for this long, after it was there, is gone.
GONE_AFTER_S = 2.0
SHORT_LIFE_S = 30.0
FLAP_PAUSE_MOST_S = 30.0
END_GRACE_S = 3.0
LOOK_S = 2.0

log = logging.getLogger("mailbox.warden")


class MachineWarden:
    """Keeps the channel of one machine and knows its state."""

    def __init__(self, config: WardenConfig) -> None:
        self._config = config
        wanted = (*config.forwards, *filter(None, (config.agent,)))
        self._counters = tuple(Counters(spec) for spec in wanted)
        self._channel: Channel | None = None
        self._state: State = "connecting"
        self._since = time.time()
        self._reason = ""
        self._changed = asyncio.Event()
        self._over = False
        self._flaps = 0
        self._awaited = asyncio.Event()
        self.stop = asyncio.Event()
        self.finished = asyncio.Event()

    def status(self) -> WardenStatus:
        """Return state and counters."""
        forwards = tuple(counters.status() for counters in self._counters)
        return WardenStatus(self._state, self._since, self._reason, forwards)

    def channel(self) -> Channel:
        """Return the channel, or raise the RefusedError that says why there is none."""
        if self._channel is not None:
            return self._channel
        if self._state == "connecting":
            raise RefusedError("machine-silent", "The machine has not answered yet.", self._reason)
        raise RefusedError("channel-lost", "The channel to the machine broke.", self._reason)

    async def settled(self, deadline_s: float) -> None:
        """Return once the channel is ready, given up, or the time is over."""
        if deadline_s > 0:  # who only asks for the state does not wait
            self._awaited.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while self._state != "ready" and not self._over:
                    self._changed.clear()
                    await self._changed.wait()

    async def stopped(self) -> None:
        """Stop the warden and return when nothing of it is left but this answer."""
        self.stop.set()
        await self.finished.wait()

    async def keep(self) -> int:
        """Keep the channel until the machine is gone; return the exit code that says how."""
        if self._config.held:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._awaited.wait(), self._config.connect_deadline_s)
        while (found := await self._connect()) is not None:
            channel, egress = found
            self._channel = channel
            self._enter("ready")
            began = time.monotonic()
            try:
                await channel.connection.wait_closed()
            finally:
                self._channel = None
                egress.close()
                channel.connection.abort()
            self._flaps = self._flaps + 1 if time.monotonic() - began < SHORT_LIFE_S else 0
            self._enter("lost", "the channel broke")
            await asyncio.sleep(self._flap_pause())
        self._over = True
        self._enter(self._state, self._reason)
        return EXIT_SILENT if self._state == "connecting" else EXIT_OK

    def _flap_pause(self) -> float:
        # A guest that comes and goes in a circle must not keep the host busy.
        return min(FLAP_PAUSE_MOST_S, 0.25 * 2.0 ** min(self._flaps, 10)) if self._flaps else 0.0

    async def _connect(self) -> tuple[Channel, Egress] | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.connect_deadline_s
        pause, present = RETRY_FIRST_S, loop.time()
        patience = HELLO_AGAIN_S if self._state == "lost" or self._config.up else HELLO_TRY_S
        patience = HELLO_RETURN_S if self._config.held and self._state != "lost" else patience
        while (left := deadline - loop.time()) > 0:
            try:
                return await self._try(min(patience, left))
            except (FileNotFoundError, ConnectionRefusedError):
                self._note("the machine's socket is not there")
                if self._state == "lost" and loop.time() - present > GONE_AFTER_S:
                    return None
            except (OSError, HelloError, asyncssh.Error, ValueError) as error:
                present = loop.time()
                self._note(_describe(error))
                patience = min(HELLO_TRY_S, patience * 2)
            await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
            pause = min(pause * 1.5, RETRY_MOST_S)
        return None

    async def _try(self, hello_timeout_s: float) -> tuple[Channel, Egress]:
        channel = await open_channel(
            self._config.channel_socket, self._config.hostname, hello_timeout_s
        )
        egress = Egress(self._counters, channel.gate)
        try:
            await egress.listen(channel.connection)
        except BaseException:
            egress.close()
            channel.connection.abort()
            raise
        return channel, egress

    def _note(self, reason: str) -> None:
        if reason != self._reason:
            log.info("%s: %s", self._state, reason)
        self._reason = reason

    def _enter(self, state: State, reason: str = "") -> None:
        if state != self._state:
            self._since = time.time()
            log.info("%s%s", state, f": {reason}" if reason else "")
        self._state, self._reason = state, reason
        self._changed.set()


def _describe(error: Exception) -> str:
    """Say what went wrong in our words; what a guest says is cleaned and cut."""
    if isinstance(error, HelloError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the machine does not answer"
    if isinstance(error, asyncssh.ChannelListenError):
        return "the machine refuses a listener"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return "the machine's SSH server has another key than it announced"
    if isinstance(error, asyncssh.PermissionDenied):
        return "the machine's SSH server refuses the key it was given"
    if isinstance(error, asyncssh.Error):
        return f"SSH failed ({clean_text(error.reason, 80)})"
    return f"the connection failed ({type(error).__name__})"


async def serve(config: WardenConfig, lock: int) -> int:
    """Run the warden until it is stopped, or its machine or its socket is gone."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_exception)
    warden = MachineWarden(config)
    control = ControlServer(config.control_socket, warden)
    await control.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, warden.stop.set)
    keeping = asyncio.create_task(warden.keep())
    stopping = asyncio.create_task(warden.stop.wait())
    missing = asyncio.create_task(_unreachable(control))
    tasks = (keeping, stopping, missing)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    code = keeping.result() if keeping.done() else EXIT_OK
    control.close()
    # Who waits for the machine gets the answer that there is none.
    await control.end_clients(lambda op: op in (Op.WAIT, Op.STOP), 0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    release_lock(config.control_socket, lock)
    warden.finished.set()
    await control.end_clients(lambda op: op is Op.STOP, END_GRACE_S)
    return code


async def _unreachable(control: ControlServer) -> None:
    while control.is_there():
        await asyncio.sleep(LOOK_S)


def _log_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    # Messages and reprs may quote what passed through the channel; a type name cannot.
    log.error("unexpected: %s", type(context.get("exception")).__name__)


def main() -> int:
    """Run as a process of its own."""
    try:
        config = parse_config(sys.stdin.buffer.read(MAX_CONFIG + 1))
    except MailboxError as error:
        sys.stderr.write(f"{error}\n{error.details}\n")
        return EXIT_CONFIG
    os.umask(0o077)
    try:
        lock = own_lock(config.control_socket, sys.argv[1:])
        if lock is None:
            sys.stderr.write("another warden holds this machine\n")
            return EXIT_RUNNING
        detach(config.log_file)
    except OSError as error:
        sys.stderr.write(f"cannot start: {error}\n")
        return EXIT_SOCKET
    log.info("warden of %s (%s) begins", config.name, config.profile_id)
    try:
        code = asyncio.run(serve(config, lock))
    except (OSError, UnsafeFolderError) as error:
        log.error("cannot serve the control socket: %s", error)
        release_lock(config.control_socket, lock)
        return EXIT_SOCKET
    log.info("warden ends with %d", code)
    return code


if __name__ == "__main__":
    sys.exit(main())
