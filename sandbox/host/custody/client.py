"""Starts the custodian of a machine, asks it, ends it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.host import agents, daemons
from sandbox.model.errors import Exit, MailboxError

_START_S = 20.0
_END_S = 5.0
_POLL_S = 0.05


class Custodians:
    """Custodians as processes of their own that outlive the command that started them."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Start one, in the place of one that runs; returns when it serves.

        Raises:
            MailboxError: `custody-failed`.
        """
        control = Path(config["control"])
        self.stop(control, Path(config["home"]) if config["home"] else None)
        told = {**config, "tty": _terminal()}
        daemons.start("sandbox.host.custody.custodian", told, control)
        end = time.monotonic() + _START_S
        while (answer := self._ask(control, {"op": "status"})) is None:
            if time.monotonic() > end:
                raise MailboxError(
                    "The private key could not be offered to the machine; it stays where it is.",
                    details=f"No answer at {control}; its log is {config['log_file']}.",
                    resolution="Open again; `mailbox doctor` checks GnuPG and the keyring.",
                    code="custody-failed",
                    exit_code=Exit.KEYS,
                )
            time.sleep(_POLL_S)
        if not answer.get("here"):
            self.stop(control)
            raise _not_here(config)

    def allow(self, control: Path, seconds: float) -> bool:
        """Allow every operation for a while; False when no custodian runs."""
        return self._ask(control, {"op": "allow", "seconds": seconds}) is not None

    def stop(self, control: Path, ring: Path | None = None) -> None:
        """End a custodian; None is no error, and one that hangs is killed.

        In the mailbox's key ring, if it has one, the gpg-agent is ended too.
        """
        if self._ask(control, {"op": "stop"}) is not None:
            end = time.monotonic() + _END_S
            while time.monotonic() < end and control.exists():
                time.sleep(_POLL_S)
        daemons.kill(control)
        control.unlink(missing_ok=True)
        if ring is not None:
            agents.close_ring(ring)

    @staticmethod
    def _ask(control: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError, ValueError):
            sock.settimeout(5)
            sock.connect(str(control))
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as answer:
                fields = json.loads(answer.readline(4096))
            return fields if isinstance(fields, dict) else None
        return None


def _not_here(config: Mapping[str, Any]) -> MailboxError:
    own = "the mailbox's key ring" if config["home"] else "your own GnuPG"
    other = "user" if config["home"] else "mailbox"
    return MailboxError(
        f"The private key {config['fingerprint']} is not in {own}; the machine was not given it.",
        details="Mail that is encrypted to it could not be read, and none could be signed.",
        resolution=f'Bring the key there, or say `holder = "{other}"` below [keys] in '
        f"`mailbox edit {config['name']}`.",
        code="key-not-here",
        exit_code=Exit.KEYS,
    )


def _terminal() -> str | None:
    """The terminal this command was given on, for questions where there is no desktop."""
    try:
        return os.ttyname(0)
    except OSError:
        return None
