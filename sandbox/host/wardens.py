"""Starts the warden of a machine and finds it again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.channel.client import WardenClient
from sandbox.host import process

_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)


class WardenProcesses:
    """Wardens as processes of their own that outlive the command that started them."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Start a warden; its configuration (no secrets) goes through its standard input."""
        argv = [sys.executable, "-P", "-m", "sandbox.channel.warden"]
        process.spawn_daemon(argv, config=json.dumps(config).encode())

    def find(self, control_socket: Path) -> WardenClient:
        """The client of the warden behind a control socket."""
        return WardenClient(control_socket)

    def answers(self, control_socket: Path) -> bool:
        """Whether a warden listens there."""
        return _peer(control_socket) is not None

    def kill(self, control_socket: Path) -> None:
        """End a warden that does not answer, by the process that holds the socket."""
        pid = _peer(control_socket)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _peer(control_socket: Path) -> int | None:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(2)
        probe.connect(str(control_socket))
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid: int = _PEER.unpack(raw)[0]
        return pid
    return None
