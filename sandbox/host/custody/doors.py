"""Ways to a gpg-agent: the one of a mailbox's own key ring, or the user's.

Both are asked on the agent's restricted socket, and are started when they are away.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from sandbox.host import agents, process
from sandbox.host.custody.agent import Agent
from sandbox.host.custody.keygrips import Grips, held_grips
from sandbox.state import files


class Door:
    """The user's own gpg-agent: a smartcard is reached through it, and it asks with its pinentry.

    It is the user's: it is not set up, not ended, and nothing is copied out of it.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._where = ["--homedir", str(home)] if home else []
        self._home = home
        self._found: Path | None = None
        self._starting = asyncio.Lock()

    def grips(self, fingerprint: str, retired: Sequence[str]) -> Grips:
        """The keygrips of the keys that are here."""
        return held_grips(self._home, fingerprint, retired)

    async def connect(self) -> Agent:
        """A connection to the agent; it is started when it is not there."""
        try:
            return await Agent.connect(self._found or await self._find())
        except OSError:
            async with self._starting:
                await asyncio.to_thread(self._launch)
            return await Agent.connect(await self._find())

    async def _find(self) -> Path:
        ask = ["gpgconf", *self._where, "--list-dirs", "agent-extra-socket"]
        done = await asyncio.to_thread(process.run, ask, timeout=10)
        self._found = Path(done.stdout.decode().strip())
        return self._found

    def _launch(self) -> None:
        process.run(["gpgconf", *self._where, "--launch", "gpg-agent"], check=False, timeout=10)

    def end(self) -> None:
        """Nothing: it was there before."""


class KeyRing(Door):
    """The mailbox's own key ring, whose agent has a pinentry that reads the keyring."""

    def __init__(self, home: Path, profile: uuid.UUID, turns: Path) -> None:
        super().__init__(home)
        self._folder = home
        pinentry = home / agents.PINENTRY
        module = "sandbox.host.custody.pinentry"
        command = [sys.executable, "-P", "-m", module, str(profile), str(turns)]
        files.replace(pinentry, f"#!/bin/sh\nexec {shlex.join(command)}\n".encode())
        pinentry.chmod(0o700)
        # In its settings, not on a command line: whatever starts an agent here starts this one.
        # The keyring is asked once an hour, not once a mail.
        agents.configure(home, f"pinentry-program {pinentry}\ndefault-cache-ttl 3600\n")
        agents.end(home)

    def end(self) -> None:
        """End the agent, with all that it knows."""
        agents.close_ring(self._folder)
