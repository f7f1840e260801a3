"""Starts the warden of a machine and finds it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.channel.client import WardenClient
from sandbox.host import daemons


class WardenProcesses:
    """Wardens as processes of their own that outlive the command that started them."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Start a warden, unless the machine has one; its configuration holds no secrets."""
        daemons.start("sandbox.channel.warden", config, Path(config["control_socket"]))

    def find(self, control_socket: Path) -> WardenClient:
        """The client of the warden behind a control socket."""
        return WardenClient(control_socket)

    def answers(self, control_socket: Path) -> bool:
        """Whether a warden listens there."""
        return daemons.peer(control_socket) is not None

    def kill(self, control_socket: Path) -> None:
        """End a warden that does not answer, or not yet, and wait until it is gone."""
        daemons.kill(control_socket)
