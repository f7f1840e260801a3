"""Kills and closings: the mail survives, nothing is left, the next command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from demo.session import find_bytes
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


def test_close_leaves_ciphertext_only(opened: World) -> None:
    opened.mailbox("close", NAME)
    assert _status(opened)["machine"] == "closed"
    assert not list((opened.session.runtime / "mailbox").glob("*"))
    assert not list((opened.session.home / "run").glob("*"))
    assert not find_bytes(opened.session.folders, [opened.canary.encode()])
    # Idempotent.
    assert opened.mailbox("close", NAME, "--json").returncode == 0


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
    opened.open()
    assert opened.proof.facts(messages=1)


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
    world.mailbox("shred", NAME, "--yes")
    assert not world.volume.exists()
    places = (world.session.home, *world.session.desktop_folders)
    needles = [world.canary.encode(), b"anna@kunde.test"]
    assert not find_bytes(places, needles)
    gone = world.mailbox("open", NAME, check=False)
    assert gone.returncode == 3
    assert "shredded" in gone.stderr
