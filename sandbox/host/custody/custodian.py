"""The custodian: the host process that holds the key of one open machine.

`python -m sandbox.host.custody.custodian` reads its configuration from standard input, serves the
guest's GnuPG on one socket (the warden carries it) and the user's commands on another. It starts
the profile's gpg-agent when it is needed and ends it with itself; with a key that the user's own
GnuPG holds it asks the user's agent instead.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.channel.daemon import Name, detach, own_lock, release_lock
from sandbox.host.custody.ask import ask_user
from sandbox.host.custody.doors import Door, KeyRing
from sandbox.host.custody.holder import Holder, Holding
from sandbox.host.custody.keygrips import Grips
from sandbox.model.custody import Custody, Grants, Where, parse_rule
from sandbox.model.errors import MailboxError
from sandbox.state.activity import Activity

EXIT_RUNNING = 75
MAX_REQUEST = 4096
LOOK_S = 2.0
_VERSION = "2.2.0"

log = logging.getLogger("mailbox.custodian")


@dataclass(frozen=True)
class Config:
    """What a custodian is told at its start; never a secret."""

    profile_id: uuid.UUID
    name: str
    fingerprint: str
    retired: tuple[str, ...]
    # Of the mailbox's key ring; None: the user's own GnuPG holds the key.
    home: Path | None
    socket: Path
    control: Path
    log_file: Path
    activity: Path
    turns: Path
    custody: Custody
    tty: str | None

    @classmethod
    def parse(cls, text: bytes) -> Config:
        """From JSON; KeyError or ValueError if it is none."""
        fields = json.loads(text)
        paths = {key: Path(fields[key]) for key in ("socket", "control", "log_file")}
        return cls(
            profile_id=uuid.UUID(fields["profile_id"]),
            name=str(fields["name"]),
            fingerprint=str(fields["fingerprint"]),
            retired=tuple(map(str, fields.get("retired", ()))),
            home=Path(fields["home"]) if fields["home"] else None,
            activity=Path(fields["activity"]),
            turns=Path(fields["turns"]),
            custody=Custody(Where.HOST, parse_rule(fields["decrypt"]), parse_rule(fields["sign"])),
            tty=fields.get("tty") or None,
            **paths,
        )


class Custodian:
    """The two sockets and what stands behind them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._grants = Grants(config.custody)
        self._door = Door()
        if config.home:
            self._door = KeyRing(config.home, config.profile_id, config.turns)
        self._grips = Grips((), (), here=False)
        self._activity = Activity(config.activity)
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until stopped, or until the sockets' folder is gone."""
        config = self._config
        servers = [
            await asyncio.start_unix_server(await self._serve_guest(), str(config.socket)),
            await asyncio.start_unix_server(self._command, str(config.control), limit=MAX_REQUEST),
        ]
        names = [Name(config.socket), Name(config.control)]
        try:
            while not self.stop.is_set() and all(name.is_ours() for name in names):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), LOOK_S)
        finally:
            for server in servers:
                server.close()
            self._door.end()
            for name in names:
                name.remove()

    async def _serve_guest(self) -> Any:
        config = self._config
        grips = self._grips = self._door.grips(config.fingerprint, config.retired)
        holding = Holding(
            label=config.name,
            key=config.fingerprint,
            version=await self._version(),
            sign=grips.sign,
            decrypt=grips.decrypt,
            connect=self._door.connect,
            ask=self._ask,
            note=self._note,
            asks_person=config.home is None,
        )
        return Holder(holding, self._grants).serve

    async def _version(self) -> str:
        try:
            agent = await self._door.connect()
            try:
                return await agent.version()
            finally:
                agent.close()
        except (OSError, MailboxError):
            return _VERSION

    async def _ask(self, operation: str) -> bool | None:
        config = self._config
        what = "sign a mail" if operation == "sign" else "read encrypted mail"
        title = f"{config.name}: use the private key?"
        question = f"The mailbox {config.name} wants to {what} with the key {config.fingerprint}."
        return await asyncio.to_thread(ask_user, title, question, config.tty)

    def _note(self, operation: str, what: str, outcome: str) -> None:
        try:
            self._activity.append(operation, what, outcome)
        except MailboxError as error:
            log.error("activity: %s", error.code)

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                request = json.loads(await reader.readline())
            writer.write(json.dumps(self._answer(request)).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError, AttributeError, TypeError):
            log.warning("a request was not understood")
        finally:
            writer.close()

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("op") == "allow":
            seconds = min(float(request.get("seconds", 0)), 24 * 3600.0)
            self._grants.allow(seconds, time.monotonic())
            self._note("allowed", f"{seconds:g} s", "by the user")
        elif request.get("op") == "stop":
            self.stop.set()
        here = self._grips.here
        return {"fingerprint": self._config.fingerprint, "here": here}


async def _main(config: Config) -> None:
    custodian = Custodian(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, custodian.stop.set)
    await custodian.run()


def main() -> int:
    """Run as a process of its own."""
    config = Config.parse(sys.stdin.buffer.read(64 * 1024))
    os.umask(0o077)
    lock = own_lock(config.control, sys.argv[1:])
    if lock is None:
        return EXIT_RUNNING
    detach(config.log_file)
    for path in (config.socket, config.control):
        path.unlink(missing_ok=True)
    asyncio.run(_main(config))
    release_lock(config.control, lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
