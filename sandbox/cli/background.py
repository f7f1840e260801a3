"""The process that makes missing warm states after an open that had to boot; nobody waits for it.

What fails is noted beside the image: `image list` and `doctor` tell it.
"""

from __future__ import annotations

import contextlib
import os
import sys

from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.lifecycle.warming import catch_up
from sandbox.model.errors import MailboxError
from sandbox.state import lock

_NICE = 10


def start(client: str) -> None:
    """Start it for a client's newest image."""
    from sandbox.host import process

    process.spawn_daemon([sys.executable, "-P", "-m", "sandbox.cli.background", client], config=b"")


def main(client: str) -> int:
    """The entry point; one that finds another at work leaves it to that one."""
    house = compose(Printer(as_json=True))
    if lock.is_held(house.paths.warming_lock):
        return 0
    os.nice(_NICE)
    with contextlib.suppress(MailboxError):
        catch_up(house, house.images.newest(client), gently=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
