"""Our own daemons: each serves a control socket, and holds a lock from its birth to its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.channel.daemon import hold_lock, lock_file
from sandbox.host import process
from sandbox.state import files, lock

_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
_END_S = 20.0
_POLL_S = 0.02


def start(module: str, config: Mapping[str, Any], control: Path) -> None:
    """Start one as a process of its own, unless one is there; its standard input is `config`.

    It is born with its lock (flock(2): a child shares its parent's open file), so whoever comes
    after us knows of it before it serves, even if we are killed here.
    """
    with files.readable_errors(control):
        held = hold_lock(control)
    if held is None:
        return
    try:
        argv = [sys.executable, "-P", "-m", module, str(held)]
        process.spawn_daemon(argv, config=json.dumps(config).encode(), pass_fds=(held,))
    finally:
        os.close(held)


def peer(control: Path) -> int | None:
    """The process that serves the socket, or None."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(2)
        probe.connect(str(control))
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid: int = _PEER.unpack(raw)[0]
        return pid
    return None


def kill(control: Path) -> None:
    """Kill the one behind a socket and wait for its end; one that does not serve yet is awaited."""
    end = time.monotonic() + _END_S
    while (pid := peer(control)) or lock.is_held(lock_file(control)):
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            return
        time.sleep(_POLL_S)
