"""What the programs of a mailbox are given and write while it opens and closes.

Suspending is not traced: a traced fusermount3 has not its rights (ptrace(2)), and mounts nothing.
"""

from __future__ import annotations

import subprocess

import pytest

from demo.session import find_bytes
from tests.host.conftest import absent, need
from tests.host.test_secrets import traced, vault, written_outside
from tests.machine.conftest import NAME, SECRETS, World

VERBS = (("open", NAME, "--headless"), ("close", NAME))


def test_no_program_is_given_a_secret_and_none_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("strace")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode != 0:
        absent("strace may not trace here")
    # What looks for a library asks a compiler, which writes there (ctypes.util.find_library).
    monkeypatch.setitem(world.session.env, "TMPDIR", str(world.session.runtime))
    world.mailbox("close", NAME, "--shutdown")
    secrets: set[bytes] = set()
    programs: set[str] = set()
    for verb in VERBS:
        done = traced(world.session, *verb)
        assert done.status == 0, done.output.decode()
        secrets |= {secret for kind in SECRETS if (secret := vault(world.session, kind))}
        programs |= done.programs
        told = done.trace.encode() + done.output
        assert not [each for each in secrets if each in told], verb
        assert written_outside(world.session, done) == set(), verb
        hidden = [*secrets, world.canary.encode()]
        assert find_bytes(world.session.folders, hidden) == [], verb
    assert len(secrets) == len(SECRETS)
    assert "gpg" in programs  # the trace does see them
