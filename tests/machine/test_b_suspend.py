"""A suspended mailbox rests encrypted, goes on where it was, and shows what came meanwhile."""

from __future__ import annotations

import json

import pytest

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
