"""The command line's side of the warden's control socket: synchronous, standard library only."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, BinaryIO

from sandbox.channel.protocol import (
    CHUNK,
    MAX_STATE,
    Frame,
    FrameDecoder,
    Op,
    ProtocolError,
    Request,
    Stream,
    check_argv,
    encode_frame,
    encode_request,
    parse_json_payload,
)
from sandbox.channel.status import WardenStatus, parse_status
from sandbox.channel.untrusted import GuestEvent, LineSplitter, clean_text, parse_event
from sandbox.model.errors import Exit, MailboxError

# The warden answers late rather than never: it keeps the deadline, this is for its own end.
SLACK_S = 15.0
START_GRACE_S = 15.0
POLL_S = 0.05
GUEST_PROGRAM = "mailbox-guest"
# What a verb of the guest may say, in bytes.
MAX_TOLD = 1024 * 1024


@dataclass(frozen=True)
class ProvisionResult:
    """How a set-up went: `error` is the guest's own reason if it did not reach `ready`."""

    exit_code: int
    ready: bool
    warnings: tuple[GuestEvent, ...] = ()
    error: GuestEvent | None = None
    ignored: int = 0
    stderr: str = ""
    checked: tuple[GuestEvent, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the client in the machine is usable."""
        return self.exit_code == 0 and self.ready and self.error is None


class WardenClient:
    """Asks the warden behind one control socket."""

    def __init__(self, control_socket: Path) -> None:
        self._path = control_socket

    def status(self, timeout: float = 5.0) -> WardenStatus:
        """Return the state of the channel and the counters of its forwards."""
        with self._ask(Request(Op.STATUS), timeout) as call:
            return _status_of(call)

    def wait_ready(self, deadline_s: float) -> WardenStatus:
        """Return once the channel is ready; MailboxError if the machine or its warden is not."""
        end = time.monotonic() + deadline_s
        self._wait_for_warden(min(end, time.monotonic() + START_GRACE_S))
        left = max(0.0, end - time.monotonic())
        with self._ask(Request(Op.WAIT, deadline_s=left), left + SLACK_S) as call:
            status = _status_of(call)
        if status.state == "ready":
            return status
        if status.state == "lost":
            raise _channel_lost(status.reason)
        raise _silent(status.reason)

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "mail-user",
        stdin: BinaryIO | bytes | None = None,
        stdout: BinaryIO,
        stderr: BinaryIO,
    ) -> int:
        """Run a command in the machine; return its exit code, 128 + N if signal N ended it."""
        try:
            request = Request(Op.RUN, argv=check_argv(tuple(argv)), user=user)
        except ProtocolError as error:
            raise _error("request", "The command cannot be run.", str(error)) from error
        sinks = {Stream.STDOUT: stdout, Stream.STDERR: stderr}
        with self._ask(request, None) as call:
            call.feed(stdin)
            for frame in call.frames():
                sink = sinks.get(frame.stream)
                if sink is not None:
                    sink.write(frame.payload)
                    sink.flush()
            return _exit_code(call.exit)

    def provision(
        self,
        desired: Mapping[str, Any],
        on_event: Callable[[GuestEvent], None],
        deadline_s: float,
    ) -> ProvisionResult:
        """Send the desired state; hand on each event as it comes.

        A guest that fails and says why is a result with `error`; one that fails without a reason
        raises `guest-error`.
        """
        state = dumps(desired, separators=(",", ":")).encode("ascii")
        if len(state) > MAX_STATE:
            raise _error("request", "The profile's state is too large for the channel.")
        events: list[GuestEvent] = []
        with self._ask(Request(Op.PROVISION, deadline_s=deadline_s), deadline_s + SLACK_S) as call:
            call.feed(state)
            for frame in call.frames():
                event = parse_event(frame.payload) if frame.stream is Stream.EVENT else None
                if event is not None:
                    events.append(event)
                    on_event(event)
            return _provision_result(call.exit, events)

    def tell(
        self, verb: str, deadline_s: float, wish: Mapping[str, Any] | None = None
    ) -> ProvisionResult:
        """Run another verb of the guest's own program; as `provision`, it ends with `ready`."""
        request = Request(Op.RUN, argv=(GUEST_PROGRAM, verb), user="root")
        events: list[GuestEvent] = []
        lines, taken, end = LineSplitter(), 0, time.monotonic() + deadline_s
        with self._ask(request, deadline_s) as call:
            call.feed(None if wish is None else dumps(wish).encode("ascii"))
            for frame in call.frames():
                taken += len(frame.payload)
                if taken > MAX_TOLD or time.monotonic() > end:
                    raise _silent("The machine does not come to an end.")
                if frame.stream is Stream.STDOUT:
                    events += filter(None, map(parse_event, lines.feed(frame.payload)))
            return _provision_result(call.exit, events)

    def shutdown(self, deadline_s: float, on_event: Callable[[GuestEvent], None]) -> bool:
        """Ask the guest to close its client and power off, hand on what it says; say if it did."""
        with self._ask(Request(Op.SHUTDOWN, deadline_s=deadline_s), deadline_s + SLACK_S) as call:
            for frame in call.frames():
                event = parse_event(frame.payload) if frame.stream is Stream.EVENT else None
                if event is not None:
                    on_event(event)
            return call.exit.get("shut_down") is True

    def stop(self, timeout: float = 15.0) -> None:
        """Stop the warden and return when it has cleaned up; nothing to do is no error."""
        try:
            with self._ask(Request(Op.STOP), timeout) as call:
                for _frame in call.frames():
                    pass
                call.drain()
        except MailboxError as error:
            if error.code != "warden-gone":
                raise

    def _wait_for_warden(self, end: float) -> None:
        """Wait until the control socket answers; a warden that just begins is not yet there."""
        while not self._answers():
            if time.monotonic() >= end:
                raise _gone(f"No warden answers at {self._path}.")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self._path))
            return True
        return False

    @contextmanager
    def _ask(self, request: Request, timeout: float | None) -> Iterator[_Call]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            try:
                sock.connect(str(self._path))
                sock.sendall(encode_request(request))
            except OSError as error:
                raise _gone(str(error)) from error
            except ProtocolError as error:
                raise _error("request", "The request cannot be sent.", str(error)) from error
            call = _Call(sock)
            try:
                yield call
            finally:
                call.hang_up()


class _Call:
    """One request under way."""

    def __init__(self, sock: socket.socket) -> None:
        self.exit: dict[str, Any] = {}
        self._sock = sock

    def feed(self, source: BinaryIO | bytes | None) -> None:
        """Send standard input beside the reading of the answer."""
        # A daemon: a terminal that nobody types on must not keep the program alive.
        threading.Thread(target=self._feed, args=(source,), daemon=True).start()

    def _feed(self, source: BinaryIO | bytes | None) -> None:
        # Whoever reads the answer finds out that the warden is gone.
        with suppress(OSError, ValueError):
            for chunk in _chunks(source):
                self._sock.sendall(encode_frame(Stream.STDIN, chunk))
            self._sock.sendall(encode_frame(Stream.EOF))

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the exit frame, which is kept; raise what an error frame says."""
        decoder = FrameDecoder()
        try:
            while data := self._sock.recv(4 * CHUNK):
                for frame in decoder.feed(data):
                    if frame.stream is Stream.EXIT:
                        self.exit = parse_json_payload(frame.payload)
                        return
                    if frame.stream is Stream.ERROR:
                        raise _refused(parse_json_payload(frame.payload))
                    yield frame
        except TimeoutError as error:
            raise _silent("The warden did not answer in time.") from error
        except (OSError, ProtocolError) as error:
            raise _gone(str(error)) from error
        raise _gone("The warden hung up before it had answered.")

    def drain(self) -> None:
        """Wait until the warden hangs up."""
        with suppress(OSError):
            while self._sock.recv(CHUNK):
                pass

    def hang_up(self) -> None:
        """End the call; a command that still runs in the machine ends with it."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


def _chunks(source: BinaryIO | bytes | None) -> Iterator[bytes]:
    if source is None:
        return
    if isinstance(source, bytes):
        yield from (source[start : start + CHUNK] for start in range(0, len(source), CHUNK))
        return
    # read1 gives what a pipe or terminal has now instead of waiting for a full chunk.
    read = getattr(source, "read1", source.read)
    while chunk := read(CHUNK):
        yield chunk


def _status_of(call: _Call) -> WardenStatus:
    status = None
    for frame in call.frames():
        if frame.stream is Stream.EVENT:
            try:
                status = parse_status(parse_json_payload(frame.payload))
            except (ValueError, ProtocolError) as error:
                raise _gone("The warden's status is not understood.") from error
    if status is None:
        raise _gone("The warden tells no status.")
    return status


def _exit_code(fields: Mapping[str, Any]) -> int:
    code = fields.get("code")
    if isinstance(code, int):
        return code
    name = str(fields.get("signal", ""))
    number = getattr(signal.Signals, f"SIG{name}", None)
    return 128 + int(number) if number is not None else 255


def _provision_result(exit_fields: Mapping[str, Any], events: list[GuestEvent]) -> ProvisionResult:
    errors = [event for event in events if event.kind == "error"]
    result = ProvisionResult(
        exit_code=_exit_code(exit_fields),
        ready=any(event.kind == "phase" and event.name == "ready" for event in events),
        warnings=tuple(event for event in events if event.kind == "warning"),
        error=errors[-1] if errors else None,
        ignored=int(exit_fields.get("ignored", 0)),
        stderr=clean_text(str(exit_fields.get("stderr", "")), 2048),
        checked=tuple(event for event in events if event.kind == "checked"),
    )
    if result.ok or result.error is not None:
        return result
    raise _error(
        "guest-error",
        "The machine's set-up failed without saying why.",
        result.stderr or f"exit code {result.exit_code}",
    )


def _refused(fields: Mapping[str, Any]) -> MailboxError:
    return _error(
        str(fields.get("code", "")), str(fields.get("brief", "")), str(fields.get("details", ""))
    )


def _error(code: str, brief: str, details: str = "") -> MailboxError:
    exit_code = Exit.USAGE if code == "request" else Exit.MACHINE
    return MailboxError(brief, details=clean_text(details, 2048), code=code, exit_code=exit_code)


def _gone(details: str) -> MailboxError:
    return _error("warden-gone", "The machine's warden is not running.", details)


def _silent(details: str) -> MailboxError:
    return _error("machine-silent", "The machine does not answer.", details)


def _channel_lost(details: str) -> MailboxError:
    return _error("channel-lost", "The channel to the machine broke.", details)
