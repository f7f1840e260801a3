"""The passphrase of a key of the user's own, asked for with the user's own pinentry."""

from __future__ import annotations

import re

from sandbox.host import process
from sandbox.model.errors import Exit, MailboxError


def ask_with_pinentry(description: str, tty: str | None) -> str:
    """Ask for a passphrase with the user's pinentry (Assuan; pinentry manual, Protocol).

    Raises:
        MailboxError: `passphrase-not-given` when cancelled or impossible here.
    """
    listing = process.run(["gpgconf"], check=False).stdout.decode(errors="replace")
    programs = dict(line.split(":")[::2] for line in listing.splitlines() if line.count(":") >= 2)
    options = [f"OPTION ttyname={tty}"] if tty else []
    text = description.replace("%", "%25").replace("\n", "%0A")
    requests = [*options, f"SETDESC {text}", "SETPROMPT Passphrase:", "GETPIN", "BYE", ""]
    pinentry = programs.get("pinentry", "pinentry")
    done = process.run([pinentry], input="\n".join(requests).encode(), check=False)
    for line in done.stdout.splitlines():
        if line.startswith(b"D "):
            return re.sub(
                rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), line[2:]
            ).decode()
    raise MailboxError(
        "The passphrase of the key was not given; nothing was kept.",
        resolution="Give it at the prompt, or with --key-passphrase-fd.",
        code="passphrase-not-given",
        exit_code=Exit.KEYS,
    )
