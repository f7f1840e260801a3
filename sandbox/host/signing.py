"""Detached signatures by a key of the user's own GnuPG (gpg(1), doc/DETAILS for its status)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandbox.host import process
from sandbox.model.errors import Exit, MailboxError

_VALID = re.compile(r"^\[GNUPG:\] VALIDSIG (\S+).* (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Signed:
    """A checked signature: `state` is good, bad, or unknown (the key is not here)."""

    state: str
    fingerprint: str = ""


def sign(fingerprint: str, content: bytes) -> bytes:
    """A detached, armored signature; GnuPG's agent asks for the passphrase where one is needed.

    Raises:
        MailboxError: `not-signed`.
    """
    command = ["gpg", "--batch", "--no-tty", "--local-user", fingerprint, "--armor"]
    done = process.run([*command, "--detach-sign"], input=content, check=False)
    if done.returncode != 0 or not done.stdout:
        raise MailboxError(
            "The certificate could not be signed; it is as it was, without a signature.",
            details=done.last_error(),
            resolution="Check the key with `gpg --list-secret-keys`, then sign again with "
            "`mailbox certificate NAME --sign-with FINGERPRINT`.",
            code="not-signed",
            exit_code=Exit.KEYS,
        )
    return done.stdout


def verify(content: bytes, signature: bytes) -> Signed:
    """Check a detached signature with the keys of the user's own GnuPG."""
    with process.secret_pipe(signature) as descriptor:
        command = ["gpg", "--batch", "--no-tty", "--status-fd", "1", "--verify"]
        done = process.run(
            [*command, f"/dev/fd/{descriptor}", "-"],
            input=content,
            pass_fds=(descriptor,),
            check=False,
        )
    status = done.stdout.decode(errors="replace")
    valid = _VALID.search(status)
    if done.returncode == 0 and valid:
        return Signed("good", valid[2])
    return Signed("unknown" if "NO_PUBKEY" in status else "bad")
