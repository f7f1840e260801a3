"""GnuPG's agents of one home: ended, and gone."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path
from urllib.parse import unquote

from sandbox.host import process
from sandbox.model.errors import Exit, MailboxError
from sandbox.state import files

# The passphrase has 256 random bits: iterating its hash would only cost time (gpg-agent(1)).
# Its cache lives no longer than the agent, and that ends with each call; an expiry of its own would
# ask for the same passphrase once a subkey on a busy computer.
_SETTINGS = "s2k-count 65536\nallow-loopback-pinentry\nno-allow-external-cache\n"
# A custodian leads the agent to the keyring with a program of this name.
PINENTRY = "pinentry"
_GONE_S = 5.0
# The longest path of a socket that GnuPG takes (unix(7)), what gpg-agent puts behind its
# folder's, and what a draft of a key ring puts around its name.
_LONGEST = 106
_BEHIND = len("/S.gpg-agent.browser") + len("..new")


def refuse_long_path(home: Path) -> None:
    """Refuse a GnuPG home that its agent could not make sockets in.

    Where logind is, they are elsewhere, and any path will do (gpgconf(1), --create-socketdir).

    Raises:
        MailboxError: `path-too-long`.
    """
    command = ["gpgconf", "--homedir", str(home), "--list-dirs", "socketdir"]
    place = process.run(command, check=False).stdout.decode(errors="replace").strip()
    over = len(os.fsencode(home)) + _BEHIND - _LONGEST
    if unquote(place) != str(home) or over <= 0:
        return
    raise MailboxError(
        f"The path of the key ring {home} is {over} bytes too long for GnuPG's sockets; "
        "nothing was kept.",
        resolution="Take a shorter name, or a shorter path in MAILBOX_HOME.",
        code="path-too-long",
        exit_code=Exit.USAGE,
    )


def configure(home: Path, more: str = "") -> None:
    """Write the settings of a mailbox's agent, for the next one that starts.

    Raises:
        MailboxError: as `files.replace`.
    """
    files.replace(home / "gpg-agent.conf", (_SETTINGS + more).encode())


def close_ring(home: Path) -> None:
    """Undo what a custodian set up in a mailbox's key ring; one that was killed cannot itself.

    The agent ends, and what it knew is gone with its memory.
    """
    if (home / PINENTRY).exists():
        configure(home)
        end(home)
        files.remove(home / PINENTRY)


def end(home: Path) -> None:
    """End every daemon of a GnuPG home, and wait until its `gpg-agent` is gone.

    One that is going still lets the next gpg in, and then leaves it alone (gpg-agent(1)).
    """
    with contextlib.ExitStack() as stack:
        going = []
        for pid in of(home):
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                stack.callback(os.close, descriptor)
                going.append(descriptor)
        process.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
        deadline = time.monotonic() + _GONE_S
        for descriptor in going:
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))


def of(home: Path) -> list[int]:
    """The processes of agents that gpg started for this home: it names it to them."""
    found = process.started_with(home)
    return [pid for pid, program in found.items() if program.endswith("gpg-agent")]
