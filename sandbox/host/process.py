"""The only place that starts programs.

Secrets never pass through here as arguments or environment: they go through `input` or an
inherited pipe (`secret_pipe`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.errors import Exit, MailboxError


@dataclass(frozen=True)
class Completed:
    """What a finished program left: exit status and its output."""

    returncode: int
    stdout: bytes
    stderr: bytes

    def last_error(self, lines: int = 3) -> str:
        """The last lines of its standard error, for a message to the user."""
        return "\n".join(self.stderr.decode(errors="replace").strip().splitlines()[-lines:])


def which(name: str) -> str | None:
    """The path of a program; administrators' folders count, as Debian's PATH omits them."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float | None = None,
    stdout_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run a program to its end; with `stdout_line`, hand over each line of output as it comes.

    Raises:
        MailboxError: `program-missing`, `program-timeout`, or `program-failed` with `check`.
    """
    program = which(argv[0])
    if program is None:
        raise MailboxError(
            f"The program {argv[0]} is not installed.",
            resolution="Run `mailbox doctor` to see which package it comes from.",
            code="program-missing",
            exit_code=Exit.HOST,
        )
    command = [program, *argv[1:]]
    try:
        if stdout_line is not None:
            done = _run_by_line(command, pass_fds, env, stdout_line)
        else:
            done = _run_whole(command, input, pass_fds, env, timeout)
    except subprocess.TimeoutExpired:
        raise MailboxError(
            f"{argv[0]} did not finish within {timeout:g} s and was ended.",
            code="program-timeout",
            exit_code=Exit.HOST,
        ) from None
    if check and done.returncode != 0:
        raise MailboxError(
            f"{argv[0]} failed with status {done.returncode}.",
            details=done.last_error(),
            code="program-failed",
            exit_code=Exit.HOST,
        )
    return done


def _run_whole(
    command: list[str],
    data: bytes | None,
    pass_fds: Sequence[int],
    env: Mapping[str, str] | None,
    timeout: float | None,
) -> Completed:
    done = subprocess.run(
        command,
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        pass_fds=pass_fds,
        env=env,
        timeout=timeout,
        check=False,
    )
    return Completed(done.returncode, done.stdout, done.stderr)


def _run_by_line(
    command: list[str],
    pass_fds: Sequence[int],
    env: Mapping[str, str] | None,
    stdout_line: Callable[[str], None],
) -> Completed:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        env=env,
    ) as child:
        assert child.stdout is not None  # noqa: S101 - PIPE was asked for
        kept: list[bytes] = []
        try:
            for line in child.stdout:
                kept = [*kept[-199:], line]
                stdout_line(line.decode(errors="replace").rstrip())
        except BaseException:
            child.terminate()
            raise
        return Completed(child.wait(), b"", b"".join(kept))


def started_with(argument: Path) -> dict[int, str]:
    """The processes with this path among their arguments: number and program (proc_pid_cmdline(5)).

    They are known by it before they have written any note of themselves.
    """
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(argument) in arguments:
                found[int(folder.name)] = os.fsdecode(program)
    return found


@contextlib.contextmanager
def secret_pipe(secret: bytes) -> Iterator[int]:
    """A readable descriptor that yields `secret` once; give it to a child as /dev/fd/N."""
    reader, writer = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as sink:
            sink.write(secret)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join(timeout=5)


def spawn_daemon(argv: Sequence[str], *, config: bytes, pass_fds: Sequence[int] = ()) -> int:
    """Start a program that outlives us, hand it `config` on standard input; returns its PID."""
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        pass_fds=pass_fds,
    )
    assert child.stdin is not None  # noqa: S101 - PIPE was asked for
    with contextlib.suppress(BrokenPipeError), child.stdin:
        child.stdin.write(config)
    return child.pid


def spawn_viewer(argv: Sequence[str]) -> None:
    """Start a window of the user's desktop and let go of it."""
    subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def edit(path: str) -> int:
    """Open the user's editor on a file and wait for its end; returns its exit status."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "sensible-editor"
    return subprocess.run([*editor.split(), path], check=False).returncode
