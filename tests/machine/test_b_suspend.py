"""A suspended mailbox rests encrypted, goes on where it was, and shows what came meanwhile."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo import traces
from demo.mailserver import CUSTOMER
from demo.main import message_id
from demo.session import find_bytes
from sandbox.host.storage import suspend_problem
from tests.host.mocklogind import mock_logind, wait_until
from tests.machine.conftest import NAME, World


@pytest.fixture(scope="module", autouse=True)
def fuse() -> None:
    problem = suspend_problem()
    if problem:
        pytest.skip(problem)


def test_it_goes_on_and_mail_that_came_meanwhile_is_there(opened: World) -> None:
    opened.inside("touch", "/tmp/the-same-machine", check=True)
    before = len(opened.proof.facts(messages=1).inbox["subjects"])
    suspended = json.loads(opened.mailbox("suspend", NAME, "--json").stdout)
    assert suspended["facts"]["bytes"] > 0
    assert json.loads(opened.mailbox("status", NAME, "--json").stdout)["state"] == "suspended"
    assert not list((opened.session.home / "run").glob("*"))
    # The machine's memory held the decrypted mail and the address.
    needles = [opened.canary.encode(), b"LibvirtQemudSave"]
    assert not find_bytes(opened.session.folders, needles)
    letter = opened.partner.letter(opened.customer, "Inzwischen", "Das kam inzwischen.\n")
    opened.server.deliver(letter, CUSTOMER)
    facts = json.loads(opened.open().stdout)["facts"]
    assert facts["resumed"], facts
    assert opened.inside("test", "-e", "/tmp/the-same-machine").returncode == 0
    assert not list((opened.session.home / "data" / "states").glob("*"))
    assert opened.proof.facts(messages=before + 1)
    shown = opened.proof.open(message_id=message_id(letter), expect={"encrypted": "ok"})
    assert "Das kam inzwischen." in shown.body


def test_it_is_suspended_before_the_computer_sleeps(opened: World) -> None:
    with mock_logind() as logind:
        opened.session.env["DBUS_SYSTEM_BUS_ADDRESS"] = logind.address
        try:
            opened.open()  # whoever finds it open has its sleep guarded, too
            wait_until(lambda: len(logind.inhibitors) == 1)
            logind.prepares(True)
            wait_until(lambda: logind.inhibitors == [])
        finally:
            del opened.session.env["DBUS_SYSTEM_BUS_ADDRESS"]
    told = (opened.session.home / "state" / "sleep.log").read_text()
    assert f"suspend {NAME}: done" in told
    assert json.loads(opened.mailbox("status", NAME, "--json").stdout)["state"] == "suspended"
    assert json.loads(opened.open().stdout)["facts"]["resumed"]


def _killed_at(world: World, step: str, *command: str) -> None:
    """Run a command; as soon as its journal says that the step begins, it is killed."""
    journal = world.session.home / "state" / "journal" / f"{NAME}.jsonl"
    begin = journal.stat().st_size
    program = [str(Path(sys.executable).parent / "mailbox"), *command]
    with subprocess.Popen(program, env=world.session.env, stderr=subprocess.DEVNULL) as child:
        while not _begins(journal, begin, step):
            assert child.poll() is None, f"{command[0]} ended before {step}"
            time.sleep(0.05)
        child.kill()
    unfinished = json.loads(world.mailbox("status", NAME, "--json").stdout)["unfinished"]
    assert unfinished == command[0]


def _begins(journal: Path, begin: int, step: str) -> bool:
    with journal.open("rb") as file:
        file.seek(begin)
        lines = file.read().split(b"\n")[:-1]
    return any(
        (said["event"], said.get("step")) == ("step", step) for said in map(json.loads, lines)
    )


def _assert_nothing_runs(world: World) -> None:
    ours = [os.fsencode(folder) for folder in world.session.folders]
    programs = (b"qemu-system", b"qemu-storage-daemon", b"sandbox.channel.warden")
    running = [
        words
        for _, words in traces.processes()
        if any(each in words for each in ours) and any(each in words for each in programs)
    ]
    assert running == []
    mounts = Path("/proc/self/mounts").read_bytes()
    assert not any(each in mounts for each in ours)
    assert not list((world.session.home / "run").glob("*"))
    assert not list((world.session.home / "data" / "states").glob("*"))
    secrets = world.session.run(["virsh", "-q", "-c", "qemu:///session", "secret-list"])
    assert secrets.stdout.strip() == b""


def test_killed_in_the_middle_of_it_the_next_command_goes_on(opened: World) -> None:
    """Suspending and resuming with SIGKILL, on the real machine; the mail is there each time."""
    for step in ("save", "seal"):
        _killed_at(opened, step, "suspend", NAME)
        opened.open()
        assert opened.proof.facts(messages=1), step
    for step in ("restore", "channel"):
        opened.mailbox("suspend", NAME)
        _killed_at(opened, step, "open", NAME, "--headless")
        opened.open()
        assert opened.proof.facts(messages=1), step
    opened.mailbox("suspend", NAME)
    _killed_at(opened, "restore", "open", NAME, "--headless")
    opened.mailbox("repair", NAME)
    opened.mailbox("close", NAME, "--shutdown")
    _assert_nothing_runs(opened)


def test_a_changed_password_reaches_the_open_client_and_goes_on_with_it(opened: World) -> None:
    """Nothing but the new one opens the inbox when the connections are made anew."""
    given = ("password", NAME, "--password-stdin", "--json")
    refused = opened.mailbox(*given, input=b"a typing error\n", check=False)
    assert json.loads(refused.stdout)["error"]["code"] == "login-refused"
    word = secrets.token_urlsafe(16)
    opened.server.set_password(CUSTOMER, word)
    facts = json.loads(opened.mailbox(*given, input=f"{word}\n".encode()).stdout)["facts"]
    assert facts["changed"] == ["mail-password"] and facts["handed"], facts
    before = len(opened.proof.facts(messages=1).inbox["subjects"])
    opened.mailbox("suspend", NAME)
    letter = opened.partner.letter(opened.customer, "Mit neuem Passwort", "Das kam danach.\n")
    opened.server.deliver(letter, CUSTOMER)
    assert json.loads(opened.open().stdout)["facts"]["resumed"]
    assert opened.proof.facts(messages=before + 1)
