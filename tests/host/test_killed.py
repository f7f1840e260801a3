"""Real commands killed (SIGKILL) in the middle: the next command brings the mailbox to order.

The crash matrix kills every verb at every moment on fakes; here real programs, a real keyring and
a real volume are caught at a chosen step, with whatever they were doing then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.session import Session
from sandbox.lifecycle import shred as shredding
from tests.host.conftest import need

ADDRESS = "canary-anna@kunde.test"
PASSWORD = b"canary-password-51aa\n"
ONBOARD = (
    *("--address", ADDRESS, "--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test"),
    *("--offline", "--password-stdin", "--size", "64M", "--generate-key", "--no-recovery-code"),
)
ONBOARD_STEPS = ("secrets", "keys", "volume", "profile")
SHRED_STEPS = tuple(step.id for step in shredding.STEPS)
PATIENCE_S = 60


@pytest.fixture(scope="module")
def world(session: Session) -> Iterator[Session]:
    need("qemu-img", "gpg")
    session.env["MAILBOX_LIBVIRT_URI"] = "test:///default"
    yield session


def killed_at(world: Session, step: str, *command: str, input: bytes = b"") -> bool:
    """Run a command and kill it, with its children, once its journal says that `step` began.

    False when it was over before it could be killed.
    """
    journal = world.home / "state" / "journal" / f"{command[1]}.jsonl"
    seen = journal.stat().st_size if journal.exists() else 0
    mailbox = str(Path(sys.executable).parent / "mailbox")
    with subprocess.Popen(
        [mailbox, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=world.env,
        start_new_session=True,
    ) as child:
        assert child.stdin is not None
        child.stdin.write(input)
        child.stdin.close()
        end = time.monotonic() + PATIENCE_S
        while child.poll() is None and step not in begun(journal, seen):
            assert time.monotonic() < end, f"{command[0]} never came to {step}"
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.returncode == -signal.SIGKILL


def begun(journal: Path, seen: int) -> set[str]:
    """The steps that began after the journal's first `seen` bytes."""
    if not journal.exists():
        return set()
    lines = journal.read_bytes()[seen:].rpartition(b"\n")[0].splitlines()
    entries = [json.loads(line) for line in lines]
    return {str(entry.get("step")) for entry in entries if entry.get("event") == "step"}


def keyring_items(world: Session) -> int:
    program = (
        "import secretstorage\n"
        "bus = secretstorage.dbus_init()\n"
        "print(len(list(secretstorage.search_items(bus, {'service': 'mailbox'}))))\n"
    )
    return int(world.run([sys.executable, "-c", program]).stdout)


def left(world: Session, name: str) -> list[str]:
    """Files of the mailbox: profile, volume, key ring and whatever stands beside them."""
    places = [world.home / "config", world.home / "data"]
    found = [path for place in places for path in place.rglob(f"*{name}*")]
    return [str(path) for path in found if not path.is_symlink()]


def names(world: Session) -> dict[str, str]:
    listed = json.loads(world.mailbox("list", "--json").stdout)
    return {entry["name"]: entry["state"] for entry in listed}


@pytest.mark.parametrize("step", ONBOARD_STEPS)
def test_a_killed_onboarding_leaves_nothing_and_can_be_repeated(world: Session, step: str) -> None:
    name = f"on-{step}"
    before = keyring_items(world)
    if killed_at(world, step, "onboard", name, *ONBOARD, input=PASSWORD):
        world.mailbox("repair", name)
    if names(world).get(name) != "closed":
        assert not left(world, name)
        assert keyring_items(world) == before
        world.mailbox("onboard", name, *ONBOARD, input=PASSWORD)
    assert names(world)[name] == "closed"
    world.mailbox("shred", name, "--yes")
    assert keyring_items(world) == before


@pytest.mark.parametrize("step", SHRED_STEPS)
def test_a_killed_shredding_goes_on_to_its_end(world: Session, step: str) -> None:
    name = f"off-{step}"
    before = keyring_items(world)
    world.mailbox("onboard", name, *ONBOARD, input=PASSWORD)
    if killed_at(world, step, "shred", name, "--yes"):
        # Any command on that mailbox finds it, says it, and finishes.
        world.mailbox("repair", name)
    assert name not in names(world)
    assert not left(world, name)
    assert keyring_items(world) == before
    refused = world.mailbox("open", name, check=False)
    assert refused.returncode == 3 and "shredded" in refused.stderr
    world.mailbox("certificate", "verify", str(certificate(world, name)))


def certificate(world: Session, name: str) -> Path:
    (found,) = (world.home / "state" / "certificates").glob(f"{name}*.json")
    return found
