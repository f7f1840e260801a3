"""A stand-in for a machine: a UNIX socket, the guest's half of the hello, then a real `sshd -i`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SSHD = "/usr/sbin/sshd"

_SSHD_CONFIG = """
HostKey {host_key}
AuthorizedKeysFile {authorized_keys}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
GatewayPorts clientspecified
MaxSessions 100
SetEnv PATH={programs}:/usr/local/bin:/usr/bin:/bin
"""

_SETPRIV = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
STAND_IN_USER=mail-user exec "$@"
"""

Script = Callable[["Guest", socket.socket], None]


def read_hello(conn: socket.socket) -> dict[str, object]:
    """Read byte by byte, as what follows the hello is SSH's."""
    line = b""
    while not (line.startswith(b"MAILBOX-HELLO ") and line.endswith(b"\n")):
        if line.endswith(b"\n"):
            line = b""
        byte = conn.recv(1)
        if not byte:
            raise ConnectionResetError
        line += byte
    fields: dict[str, object] = json.loads(line.split(b" ", 1)[1])
    return fields


def ready_line(host_key: str) -> bytes:
    """Return the guest's answer."""
    return b"MAILBOX-READY " + json.dumps({"v": 1, "host_key": host_key}).encode() + b"\n"


class Guest:
    """Accepts one connection at a time and plays its script on it."""

    def __init__(self, folder: Path, script: Script | None = None) -> None:
        self.folder = folder
        self.socket_path = folder / "channel.sock"
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.script = script or serve_sshd
        self.hellos: list[dict[str, object]] = []
        self.current: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket_path))
        self._listener.listen(1)
        self._over = False
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.program("setpriv", _SETPRIV)

    def start(self) -> Guest:
        """Begin to accept."""
        self._thread.start()
        return self

    def program(self, name: str, text: str) -> None:
        """Put a program on the guest's PATH."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def cut(self) -> None:
        """Break the channel as a rebooting guest would."""
        if self.current is not None:
            with suppress(OSError):
                self.current.shutdown(socket.SHUT_RDWR)

    def power_off(self) -> None:
        """Go away with the socket."""
        self._over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.socket_path.unlink(missing_ok=True)
        self.cut()

    def _loop(self) -> None:
        while not self._over:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self.current = conn
            with conn, suppress(OSError):
                self.script(self, conn)


def make_host_key(guest: Guest) -> tuple[Path, str]:
    """Make a fresh host key; return its file and the public half."""
    path = guest.folder / f"host-key-{len(guest.hellos)}"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path, path.with_suffix(".pub").read_text().strip()


def serve_sshd(guest: Guest, conn: socket.socket) -> None:
    """Do what the real guest does."""
    hello = read_hello(conn)
    guest.hellos.append(hello)
    private, public = make_host_key(guest)
    authorized = guest.folder / "authorized_keys"
    authorized.write_text(f"{hello['client_key']}\n")
    config = guest.folder / "sshd_config"
    config.write_text(
        _SSHD_CONFIG.format(host_key=private, authorized_keys=authorized, programs=guest.programs)
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    conn.sendall(ready_line(public))
    with (guest.folder / "sshd.log").open("ab") as log:
        environment = {"PATH": os.environ["PATH"], "HOME": str(guest.folder)}
        fd = conn.fileno()
        command = [SSHD, "-i", "-e", "-f", str(config)]
        subprocess.run(command, stdin=fd, stdout=fd, stderr=log, env=environment, check=False)
