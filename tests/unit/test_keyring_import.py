"""Asking for the keyring must not start compilers."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import subprocess
def start(*arguments, **_options):
    raise SystemExit(f"started {arguments}")
subprocess.Popen.__init__ = start
from sandbox.host import vault
import keyring
print(vault.backend_name(keyring.get_keyring()))
"""


def test_no_program_is_started_to_find_the_keyring() -> None:
    # Without a bus there is no keyring; which one is chosen is keyring's business.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": "/usr/bin:/bin:/sbin", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("keyring.backends.")


def test_a_backend_that_the_user_configured_is_taken() -> None:
    program = "from sandbox.host import vault; import keyring; print(keyring.get_keyring())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin", "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "keyring.backends.null" in done.stdout, done.stderr
