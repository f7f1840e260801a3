"""The pinentry of a profile's gpg-agent: it asks nobody, the passphrase rests in the keyring.

`python -m sandbox.host.custody.pinentry PROFILE_ID TURNS`, started by gpg-agent (pinentry manual,
"Protocol"). It answers once a key; a passphrase that was wrong is not offered again.
TURNS is the lock at which all who use the keyring take turns.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sandbox.model.secrets import KEY_PASSPHRASE

_CANCELED = b"ERR 83886179 Operation cancelled <Pinentry>\n"
_MOST_LINES = 200


def serve(source: BinaryIO, sink: BinaryIO, passphrase: Callable[[], str | None]) -> None:
    """Speak the protocol until BYE or the end of `source`."""
    wrong = False
    _say(sink, b"OK ready\n")
    for _ in range(_MOST_LINES):
        line = source.readline(2048)
        word = line.split(b" ")[0].strip().upper()
        if not word:
            return
        if word == b"BYE":
            _say(sink, b"OK closing connection\n")
            return
        if word == b"SETERROR":
            wrong = True
        if word == b"GETPIN":
            secret = None if wrong else passphrase()
            _say(sink, _CANCELED if secret is None else b"D " + _escaped(secret) + b"\nOK\n")
        elif word in (b"CONFIRM", b"MESSAGE"):
            _say(sink, _CANCELED)  # nothing that the agent asks here is for a person
        else:
            _say(sink, b"OK\n")


def _escaped(secret: str) -> bytes:
    return b"".join(
        b"%%%02X" % byte if byte in b"%\r\n" else bytes([byte]) for byte in secret.encode()
    )


def _say(sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    sink.flush()


def main() -> int:
    """Run as gpg-agent's pinentry."""
    import resource

    from sandbox.host.vault import Vault
    from sandbox.model.errors import MailboxError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    profile, vault = uuid.UUID(sys.argv[1]), Vault(Path(sys.argv[2]))

    def passphrase() -> str | None:
        try:
            return vault.get(profile, KEY_PASSPHRASE)
        except MailboxError:
            return None

    serve(sys.stdin.buffer, sys.stdout.buffer, passphrase)
    return 0


if __name__ == "__main__":
    sys.exit(main())
