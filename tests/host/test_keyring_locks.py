"""A keyring that locks or dies in the middle of a command: it is said, and the next finishes."""

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
from click.testing import CliRunner, Result

from demo.session import Session
from sandbox.cli import commands, ending
from sandbox.cli.app import cli
from sandbox.lifecycle import shred as shredding
from sandbox.model.errors import Exit
from sandbox.state.journal import Journal
from tests.host.conftest import need

PASSWORD = "canary-password-7c21\n"
ONBOARD = (
    *("--address", "a@kunde.test", "--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test"),
    *("--offline", "--password-stdin", "--size", "64M", "--generate-key", "--no-recovery-code"),
)
LOCKED = {"keyring-locked", "keyring-failed"}
_ = (commands, ending)


@pytest.fixture(scope="module")
def world(in_session: Session) -> Iterator[Session]:
    need("qemu-img", "gpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAILBOX_LIBVIRT_URI", "test:///default")
        in_session.env["MAILBOX_LIBVIRT_URI"] = "test:///default"
        yield in_session


def lock(world: Session) -> None:
    program = (
        "import secretstorage\n"
        "bus = secretstorage.dbus_init()\n"
        "secretstorage.get_default_collection(bus).lock()\n"
    )
    world.run([sys.executable, "-c", program])


def die(world: Session) -> None:
    """The daemon is gone; the bus may start another one, which is locked."""
    daemon = world._daemons[-1]
    assert b"gnome-keyring" in Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
    daemon.kill()
    daemon.wait()


def unlock(world: Session) -> None:
    """As at the next login: a daemon that was given the password."""
    if world._daemons[-1].poll() is None:
        die(world)
    world._daemons.pop()
    for owner in owners(world):
        os.kill(owner, signal.SIGKILL)
    while owners(world):
        time.sleep(0.05)
    world.unlock_keyring()


def owners(world: Session) -> list[int]:
    """The process that the bus asks for secrets, if there is one."""
    query = ["dbus-send", "--session", "--print-reply=literal", "--dest=org.freedesktop.DBus", "/"]
    query += ["org.freedesktop.DBus.GetConnectionUnixProcessID", "string:org.freedesktop.secrets"]
    answer = subprocess.run(query, env=world.env, capture_output=True, check=False)
    return [int(answer.stdout.split()[-1])] if answer.returncode == 0 else []


HARMS = {"locks": lock, "dies": die}


def run_and_harm(
    world: Session, harm: str, step: str, monkeypatch: pytest.MonkeyPatch, *command: str
) -> Result:
    """Run a command; right after its journal says that `step` begins, the keyring is harmed."""
    append, harmed = Journal.append, []

    def watched(self: Journal, verb: str, event: str, run: str, at: str = "", facts=None) -> None:  # type: ignore[no-untyped-def]
        append(self, verb, event, run, at, facts)
        if (event, at) == ("step", step) and not harmed:
            HARMS[harm](world)
            harmed.append(step)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", watched)
        done = CliRunner().invoke(cli, [*command, "--json"], input=PASSWORD)
    unlock(world)
    assert harmed == [step] and PASSWORD.strip() not in done.output
    return done


def assert_told(done: Result) -> None:
    assert done.exit_code == Exit.KEYRING, done.output
    error = json.loads(done.stdout)["error"]
    assert error["code"] in LOCKED and error["resolution"] and "Traceback" not in done.output


def items(world: Session) -> int:
    program = (
        "import secretstorage\n"
        "bus = secretstorage.dbus_init()\n"
        "print(len(list(secretstorage.search_items(bus, {'service': 'mailbox'}))))\n"
    )
    return int(world.run([sys.executable, "-c", program]).stdout)


def left(world: Session, name: str) -> list[Path]:
    places = [world.home / "config", world.home / "data"]
    return [path for place in places for path in place.rglob(f"*{name}*")]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("step", ["secrets", "keys", "volume", "profile"])
def test_an_onboarding_whose_keyring_is_harmed_is_whole_or_nothing(
    world: Session, monkeypatch: pytest.MonkeyPatch, step: str, harm: str
) -> None:
    name, before = f"on-{step}-{harm}", items(world)
    done = run_and_harm(world, harm, step, monkeypatch, "onboard", name, *ONBOARD)
    # Only the first step writes to the keyring; where it locks later, all that is needed is there.
    assert bool(done.exit_code) == (step == "secrets"), done.output
    if done.exit_code:
        assert_told(done)
        world.mailbox("repair", check=False)
        assert left(world, name) == [] and items(world) == before
        world.mailbox("onboard", name, *ONBOARD, input=PASSWORD.encode())
    world.mailbox("shred", name, "--yes")
    assert items(world) == before and left(world, name) == []


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("step", [step.id for step in shredding.STEPS])
def test_a_shredding_whose_keyring_is_harmed_is_finished_by_the_next_command(
    world: Session, monkeypatch: pytest.MonkeyPatch, step: str, harm: str
) -> None:
    name, before = f"off-{step}-{harm}", items(world)
    world.mailbox("onboard", name, *ONBOARD, input=PASSWORD.encode())
    done = run_and_harm(world, harm, step, monkeypatch, "shred", name, "--yes")
    assert done.exit_code or step != "keyring"
    if done.exit_code:
        assert_told(done)
        world.mailbox("repair", name)
    assert items(world) == before and left(world, name) == []
    refused = world.mailbox("open", name, check=False)
    assert refused.returncode == Exit.NOT_FOUND and "shredded" in refused.stderr
