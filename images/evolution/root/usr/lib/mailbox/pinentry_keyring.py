#!/usr/bin/python3 -ES
"""A pinentry that takes the key's passphrase from the guest's keyring and asks nobody.

It speaks the little of the Assuan protocol that gpg-agent uses; a passphrase that was refused
once is not said again, so that nothing waits for ever.
"""

import subprocess
import sys
from urllib.parse import quote_from_bytes

LOOKUP = ["/usr/bin/secret-tool", "lookup", "mailbox", "openpgp-passphrase"]
CANCELLED = "ERR 83886179 Operation cancelled <Pinentry>"


def passphrase() -> bytes:
    """What the keyring holds, or nothing."""
    done = subprocess.run(LOOKUP, capture_output=True, check=False, timeout=60)
    return done.stdout


def say(line: str) -> None:
    """Answer one line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer until the agent leaves."""
    refused = False
    say("OK at your service")
    for line in sys.stdin:
        command = line.split(" ", 1)[0].strip().upper()
        if command == "SETERROR":
            refused = True
        if command == "GETPIN":
            secret = b"" if refused else passphrase()
            if secret:
                say("D " + quote_from_bytes(secret, safe=" "))
            say("OK" if secret else CANCELLED)
        elif command == "CONFIRM":
            say(CANCELLED)
        else:
            say("OK")
        if command == "BYE":
            return


if __name__ == "__main__":
    main()
