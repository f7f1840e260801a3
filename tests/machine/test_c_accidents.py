"""Kills and closings: the mail survives, nothing is left, the next command goes on."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo import traces
from demo.correspondent import Person
from demo.mailserver import CUSTOMER
from demo.main import image_folder, passwords, prove, root_folder
from demo.session import Session, find_bytes
from tests.host.conftest import absent
from tests.machine import plain_linux
from tests.machine.conftest import NAME, World


def _pid(pattern: str, world: World) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        ours = (
            os.fsencode(world.session.runtime) in environment or str(world.session.root) in command
        )
        if pattern in command and ours:
            return int(process.name)
    raise AssertionError(f"no process {pattern}")


def _status(world: World) -> dict[str, object]:
    status = json.loads(world.mailbox("status", NAME, "--json").stdout)
    assert isinstance(status, dict)
    return status


def test_a_killed_warden_is_replaced_by_open(opened: World) -> None:
    os.kill(_pid("sandbox.channel.warden", opened), signal.SIGKILL)
    assert opened.inside("true").returncode != 0
    opened.open()
    assert opened.inside("true").returncode == 0
    assert opened.proof.facts(messages=1)


def _keeps_secrets(arguments: bytes) -> bool:
    """The keyring and the customer's servers."""
    return any(each in arguments for each in (b"gnome-keyring", b"dovecot", b"radicale"))


def _assert_nowhere(world: World, secrets: list[bytes]) -> None:
    """In no file of this computer, in no process's arguments, environment or other memory."""
    assert traces.in_files(secrets, since=world.begun, passing=world.servers) == []
    assert traces.told(secrets) == []
    found, searched = traces.in_memory(secrets, passing=_keeps_secrets)
    assert found == []
    if not any(b"virtlogd" in each or b"dbus-daemon" in each for each in searched):
        absent("the memory of other processes may not be read here")


def test_close_leaves_ciphertext_only(opened: World) -> None:
    secrets = opened.secrets
    opened.mailbox("close", NAME)
    assert _status(opened)["machine"] == "closed"
    assert not list((opened.session.runtime / "mailbox").glob("*"))
    assert not list((opened.session.home / "run").glob("*"))
    _assert_nowhere(opened, [*secrets, opened.canary.encode()])
    # Idempotent.
    assert opened.mailbox("close", NAME, "--json").returncode == 0


def test_a_plain_linux_reads_the_volume_with_the_recovery_code(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As docs/recovery.md tells a person, word for word, on a computer that has nothing of ours."""
    world.open()
    canary = f"canary-{secrets.token_hex(8)}"
    world.inside("sh", "-c", f"echo {canary} >~/note", check=True)
    world.mailbox("close", NAME)
    kit = plain_linux.build(root_folder())
    stick = plain_linux.stick(tmp_path_factory.mktemp("plain") / "stick", world.volume)
    told = plain_linux.commands(Path("docs/recovery.md"), "Without mailbox")
    opening, *others = [each.replace("NAME", NAME) for each in told]
    assert opening.startswith("cryptsetup open ")
    with plain_linux.PlainLinux(kit, stick) as computer:
        computer.run(opening, "Enter passphrase", world.paper.read_text().strip())
        for command in others:
            computer.run(command)
        assert canary in computer.run("cat /root/customer/*/note")
        # Encrypted to the customer, as it came; prefs.js is Thunderbird's own file.
        assert world.letter in computer.run(f"grep -rhF '{world.letter}' /root/customer")
        assert CUSTOMER in computer.run("grep -rh useremail /root/customer --include=prefs.js")


def test_another_computer_opens_the_volume_with_the_recovery_code(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another home, keyring and GnuPG; from here come the volume, the profile and the code."""
    world.mailbox("close", NAME)
    code = world.paper.read_text().strip()
    words = f"{code}\n".encode() + passwords(world.server, world.dav)
    given = ("--code-stdin", "--password-stdin", "--dav-password-stdin")
    profile = world.session.home / "config" / "profiles" / f"{NAME}.toml"
    with ExitStack() as stack:
        other = stack.enter_context(
            Session(tmp_path_factory.mktemp("other"), images=image_folder())
        )
        home = Path(other.env["GNUPGHOME"])
        anna = stack.enter_context(Person("Anna Kundin", CUSTOMER, home=home, key="none"))
        anna.learn(world.partner.public_key())
        anna.gpg.import_keys(world.customer.secret_key())
        files = ("--volume", str(world.volume), "--profile", str(profile))
        other.mailbox("recover", NAME, *given, *files, input=words)
        stack.callback(lambda: other.mailbox("close", NAME, check=False))
        other.mailbox("open", NAME, "--headless")
        proof = prove(other, NAME)
        shown = proof.open(
            message_id=world.letter, expect={"encrypted": "ok", "signed": "verified"}
        )
        assert world.canary in shown.body
        facts = proof.facts(messages=1)
        assert (facts.identities, facts.identity["address"]) == (1, CUSTOMER)
        note = other.mailbox("run", NAME, "--", "sh", "-c", "cat ~/note").text
        assert note.startswith("canary-")


def test_mail_and_settings_are_there_after_reopening(opened: World) -> None:
    shown = opened.proof.open(
        message_id=opened.letter, expect={"encrypted": "ok", "signed": "verified"}
    )
    assert opened.canary in shown.body
    facts = opened.proof.facts(messages=1)
    assert [account["type"] for account in facts.accounts].count("imap") == 1
    assert facts.identities == 1


def test_a_killed_machine_loses_no_mail(opened: World) -> None:
    opened.inside("sync", root=True)
    os.kill(_pid("qemu-system", opened), signal.SIGKILL)
    time.sleep(1)
    opened.mailbox("close", NAME)
    assert _status(opened)["machine"] == "closed"
    # Without a warm state the machine boots, and nothing else is different.
    note = opened.warm_state.with_suffix(".json")
    hidden = note.rename(note.with_name("hidden.json"))
    try:
        facts = json.loads(opened.open().stdout)["facts"]
    finally:
        hidden.rename(note)
    assert not facts["warm"] and facts["cold_reason"] == "there is none"
    assert opened.proof.facts(messages=1)


def test_a_killed_storage_daemon_is_a_power_cut_and_no_more(opened: World) -> None:
    opened.inside("sync", root=True)
    os.kill(_pid("qemu-storage-daemon", opened), signal.SIGKILL)
    told = opened.open()
    assert not json.loads(told.stdout)["facts"]["already"]
    assert opened.proof.facts(messages=1)


def test_a_machine_begins_warm_and_leaves_nothing_in_the_warm_state(world: World) -> None:
    world.mailbox("close", NAME)
    note = json.loads(world.warm_state.with_suffix(".json").read_text())
    facts = json.loads(world.open().stdout)["facts"]
    assert facts["warm"], facts["cold_reason"]
    title = world.session.run(["virsh", "-c", "qemu:///session", "list", "--title"]).stdout
    assert f"{NAME} - mailbox".encode() in title
    assert "virtual machine fork" in world.inside("dmesg", root=True).text, "random numbers"
    assert world.proof.facts(messages=1)
    content = world.warm_state.read_bytes()
    assert hashlib.sha256(content).hexdigest() == note["sha256"]
    assert world.warm_state.stat().st_mode & 0o777 == 0o400
    password = world.server.password(CUSTOMER).encode()
    for needle in (NAME.encode(), CUSTOMER.encode(), password, world.canary.encode()):
        assert needle not in content


def test_a_killed_open_is_undone_by_the_next(world: World) -> None:
    world.mailbox("close", NAME)
    command = [str(Path(sys.executable).parent / "mailbox"), "open", NAME, "--headless"]
    with subprocess.Popen(command, env=world.session.env, stderr=subprocess.DEVNULL) as child:
        while _status(world)["machine"] == "closed":
            assert child.poll() is None, "open ended before it could be killed"
            time.sleep(0.2)
        child.kill()
    assert _status(world)["unfinished"] == "open"
    repaired = world.mailbox("repair", NAME)
    assert "closed" in repaired.text
    assert _status(world)["machine"] == "closed"
    assert _status(world)["unfinished"] is None


def test_shred_leaves_no_trace(world: World) -> None:
    world.open()
    secrets = world.secrets
    world.mailbox("shred", NAME, "--yes")
    assert not world.volume.exists()
    _assert_nowhere(world, [*secrets, world.canary.encode()])
    # The address of the demonstration is in the program's own files; so it is looked for in those
    # of the user's that are not.
    program = Path(__file__).parents[2]
    root = world.session.root
    others = [each for each in root.parent.iterdir() if each != root]  # the other computer's, too
    passing = (*world.servers, program, *others)
    address = traces.in_files([CUSTOMER.encode()], since=world.begun, passing=passing, own=True)
    assert address == []
    places = (world.session.home, *world.session.desktop_folders)
    needles = [world.canary.encode(), b"anna@kunde.test"]
    assert not find_bytes(places, needles)
    gone = world.mailbox("open", NAME, check=False)
    assert gone.returncode == 3
    assert "shredded" in gone.stderr
