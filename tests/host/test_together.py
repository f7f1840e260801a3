"""Many mailboxes at once, and many commands on one: nobody hinders another, nothing is left.

The machines are real and halt: an open is stopped where it would wait for its guest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from demo.session import Ran, Session
from tests.host.conftest import need, need_libvirt
from tests.host.halting import halting_image, processes
from tests.host.test_killed import (
    ONBOARD,
    PASSWORD,
    PATIENCE_S,
    begun,
    keyring_items,
    killed_at,
    left,
    names,
)

T = TypeVar("T")
EIGHT = tuple(f"many-{number}" for number in range(8))
ONE = "one"
# Of the desktop and of libvirt, not of a mailbox.
DAEMONS = ("dbus-daemon", "gnome-keyring-daemon", "libvirtd", "virtlogd")


@pytest.fixture(scope="module")
def world(session: Session) -> Iterator[Session]:
    need("gpg")
    need_libvirt()
    halting_image(session.home / "data" / "images")
    yield session
    session.mailbox("close", "--all", check=False)


def at_once(world: Session, do: Callable[[str], T], which: Sequence[str] = EIGHT) -> list[T]:
    with ThreadPoolExecutor(len(which)) as pool:
        return list(pool.map(do, which))


def domains(world: Session) -> list[str]:
    listed = world.run(["virsh", "-q", "-c", "qemu:///session", "list", "--all", "--name"])
    return listed.stdout.decode().split()


def secrets(world: Session) -> list[str]:
    listed = world.run(["virsh", "-q", "-c", "qemu:///session", "secret-list"])
    return listed.stdout.decode().split()


def opened(world: Session, name: str) -> None:
    """A machine and its warden, left by an open that was killed while it waited for the guest."""
    assert killed_at(world, "channel", "open", name, "--headless")


def others(world: Session) -> list[str]:
    """Processes of this session beside the desktop's own daemons."""
    commands = [command.split(b"\0") for command, _environment in processes(world).values()]
    shown = [
        b" ".join(words).decode()
        for words in commands
        if Path(words[0].decode()).name not in DAEMONS
    ]
    return [each for each in shown if each]


def assert_nothing_left(world: Session) -> None:
    assert domains(world) == [] and secrets(world) == []
    end = time.monotonic() + PATIENCE_S
    # What was told to end may need a moment for it.
    while others(world) and time.monotonic() < end:
        time.sleep(0.1)
    assert others(world) == []
    assert list((world.home / "run").iterdir()) == []


@contextmanager
def running(world: Session, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in another terminal; its errors can be read from `stderr`."""
    mailbox = str(Path(sys.executable).parent / "mailbox")
    with subprocess.Popen(
        [mailbox, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=world.env,
        start_new_session=True,
        # As in a terminal: signals that are ignored are inherited (signal(7)).
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


def said(child: subprocess.Popen[bytes], words: str) -> str:
    """All that it said until it said these words."""
    assert child.stderr is not None
    heard = ""
    for line in child.stderr:
        heard += line.decode()
        if words in heard:
            return heard
    raise AssertionError(f"{words!r} was never said: {heard}")


def came_to(world: Session, step: str, name: str, seen: int) -> None:
    journal = world.home / "state" / "journal" / f"{name}.jsonl"
    end = time.monotonic() + PATIENCE_S
    while step not in begun(journal, seen):
        assert time.monotonic() < end, f"it never came to {step}"
        time.sleep(0.05)


def size_of_journal(world: Session, name: str) -> int:
    return (world.home / "state" / "journal" / f"{name}.jsonl").stat().st_size


def test_eight_at_once(world: Session) -> None:
    items = keyring_items(world)
    at_once(world, lambda name: world.mailbox("onboard", name, *ONBOARD, input=PASSWORD))
    assert names(world) == dict.fromkeys(EIGHT, "closed")
    at_once(world, lambda name: opened(world, name))
    assert len(domains(world)) == len(EIGHT) and len(others(world)) >= 2 * len(EIGHT)
    assert set(names(world).values()) == {"open"}

    def end(name: str) -> Ran:
        verb = ("close",) if EIGHT.index(name) % 2 else ("shred", "--yes")
        return world.mailbox(verb[0], name, *verb[1:])

    at_once(world, end)
    assert names(world) == dict.fromkeys(EIGHT[1::2], "closed")
    assert_nothing_left(world)
    at_once(world, lambda name: world.mailbox("shred", name, "--yes"), EIGHT[1::2])
    assert names(world) == {} and keyring_items(world) == items
    for name in EIGHT:
        assert not left(world, name)


@pytest.fixture
def one(world: Session) -> Iterator[str]:
    world.mailbox("onboard", ONE, "--reuse-name", *ONBOARD, input=PASSWORD)
    yield ONE
    world.mailbox("shred", ONE, "--yes", check=False)
    assert_nothing_left(world)


def test_another_verb_waits_and_says_for_whom(world: Session, one: str) -> None:
    seen = size_of_journal(world, one)
    with running(world, "open", one, "--headless") as first:
        came_to(world, "channel", one, seen)
        with running(world, "close", one) as second:
            heard = said(second, "Waiting for")
            assert f"mailbox open {one}" in heard and str(first.pid) in heard
            os.kill(first.pid, signal.SIGINT)
            assert "what was begun is undone" in said(first, "Stopped")
            assert first.wait(PATIENCE_S) == 130
            assert second.wait(PATIENCE_S) == 0
    assert names(world)[one] == "closed"
    assert_nothing_left(world)


def test_ctrl_c_twice(world: Session, one: str) -> None:
    seen = size_of_journal(world, one)
    with running(world, "open", one, "--headless") as child:
        came_to(world, "channel", one, seen)
        for _ in range(2):
            os.kill(child.pid, signal.SIGINT)
            time.sleep(0.2)
        heard = said(child, "Stopped")
        assert child.wait(PATIENCE_S) == 130 and "Traceback" not in heard
    world.mailbox("repair", one)
    assert names(world)[one] == "closed"
    assert_nothing_left(world)


def test_one_of_two_shreds_the_other_learns_it(world: Session, one: str) -> None:
    opened(world, one)
    done = at_once(world, lambda _: world.mailbox("shred", one, "--yes", check=False), "ab")
    assert sorted(ran.returncode for ran in done) == [0, 3]
    assert "shredded" in max(done, key=lambda ran: ran.returncode).stderr
    assert one not in names(world) and not left(world, one)


def test_two_close_at_once(world: Session, one: str) -> None:
    opened(world, one)
    done = at_once(world, lambda _: world.mailbox("close", one, check=False).returncode, "ab")
    assert done == [0, 0]
    assert names(world)[one] == "closed"
    assert_nothing_left(world)


def test_shred_while_a_close_waits_for_an_open(world: Session, one: str) -> None:
    seen = size_of_journal(world, one)
    with running(world, "open", one, "--headless") as first:
        came_to(world, "channel", one, seen)
        with running(world, "close", one) as b, running(world, "shred", one, "--yes") as c:
            said(b, "Waiting for")
            said(c, "Waiting for")
            os.killpg(first.pid, signal.SIGKILL)
            assert c.wait(PATIENCE_S) == 0
            # Whoever comes second finds it shredded.
            assert b.wait(PATIENCE_S) in (0, 3)
    assert one not in names(world) and not left(world, one)
    assert_nothing_left(world)


def test_a_killed_libvirtd_warden_and_qemu(world: Session, one: str) -> None:
    opened(world, one)
    for pid, (command, _) in processes(world).items():
        if b"libvirtd" in command or b"sandbox.channel.warden" in command:
            os.kill(int(pid), signal.SIGKILL)
    assert names(world)[one] == "open"
    world.mailbox("close", one)
    assert names(world)[one] == "closed"
    assert_nothing_left(world)
    opened(world, one)
    for pid, (command, _) in processes(world).items():
        if b"qemu-system" in command.split(b"\0")[0]:
            os.kill(int(pid), signal.SIGKILL)
    world.mailbox("repair", one)
    assert names(world)[one] == "closed"
    assert_nothing_left(world)
