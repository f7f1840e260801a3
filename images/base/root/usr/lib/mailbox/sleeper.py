"""Waits in a machine that is put away, with all that it needs loaded, and lets it go on later.

A program that starts after the return is read from the image again, and translated again where
the machine is emulated; that would be a good part of the time until mail is there.
"""

import contextlib
import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

# `mailbox-guest` knows these names, too.
FOLDER = Path("/run/mailbox/sleeper")
PID, CALL, ANSWER = FOLDER / "pid", FOLDER / "call", FOLDER / "answer"


def begin(go_on: Callable[[], object]) -> None:
    """Leave a process behind that, once called, goes on and answers with all that is said then."""
    end()
    FOLDER.mkdir(mode=0o700)
    os.mkfifo(CALL, 0o600)
    os.mkfifo(ANSWER, 0o600)
    pid = os.fork()
    if pid:
        PID.write_text(f"{pid}\n", "ascii")
        return
    try:
        _let_go()
        _serve(go_on)
    finally:
        os._exit(0)


def end() -> None:
    """End the one that waits, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(PID.read_text("ascii")), signal.SIGKILL)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _let_go() -> None:
    """Nothing of the connection, nor the lock of the command, is held any longer."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(3, 1024)


def _serve(go_on: Callable[[], object]) -> None:
    with CALL.open("rb") as call:  # waits for who calls
        call.read()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        go_on()
    with ANSWER.open("w", encoding="utf-8") as answer:  # waits for who reads
        # Before the host hears of the end and begins with something new.
        shutil.rmtree(FOLDER, ignore_errors=True)
        answer.write(said.getvalue())
