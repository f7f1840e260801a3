"""What mail clients kept of a private key, taken away once the key stays on the host.

Whichever client was there before: a mailbox may have changed its client meanwhile.
"""

from pathlib import Path

import program

PLACES = (".gnupg/private-keys-v1.d/*.key", ".*/secring.gpg", ".*/*/secring.gpg")


def forget(home: Path) -> None:
    """Remove them, with no more rights than the mail client has."""
    with program.acting_as_user():
        for place in PLACES:
            for path in home.glob(place):
                path.unlink(missing_ok=True)
