"""A power cut loses nothing that the mail client or a program was told is stored."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

import pytest

from demo.letters import plain
from demo.mailserver import CUSTOMER
from demo.main import message_id
from sandbox.host.storage import suspend_problem
from tests.machine.conftest import NAME, World
from tests.machine.power import ForgetfulDisk
from tests.machine.test_c_accidents import _pid

FOLDER = "Kept"
# One file is made durable; what follows is not, and a disk that forgets has to forget it.
WRITE = """
import os
home = os.path.expanduser("~/")
def write(name, durable):
    with open(home + name, "w") as file:
        file.write({text!r})
        file.flush()
        if durable:
            os.fsync(file.fileno())
write("durable", True)
if os.fork() == 0:
    write("not-durable", False)
    os._exit(0)
os.wait()
print("written")
"""


def test_a_power_cut_loses_no_mail_that_was_stored(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    problem = suspend_problem()
    if problem:
        pytest.skip(problem)
    text = f"canary-{secrets.token_hex(8)}"
    letter = bytes(plain(world.partner.sender, CUSTOMER, f"Aufheben {text}", f"{text}\n"))
    world.server.deliver(letter, CUSTOMER)
    world.mailbox("close", NAME, "--shutdown")
    with ForgetfulDisk(world.volume, _folder(tmp_path_factory)) as disk:
        world.open()
        assert world.proof.keep(message_id(letter), FOLDER) == 1
        assert world.python_inside(WRITE.format(text=text)) == "written"
        disk.cut()
        os.kill(_pid("qemu-system", world), signal.SIGKILL)
    world.mailbox("close", NAME, "--shutdown")
    world.open()
    assert world.proof.kept(FOLDER) == [f"Aufheben {text}"]
    assert world.inside("sh", "-c", "cat ~/durable").text == text
    assert world.inside("sh", "-c", "cat ~/not-durable").text != text, "nothing was forgotten"
    found = world.inside("grep", "-rlF", f"{text}", "/home/mail-user/.thunderbird").text
    assert f"/{FOLDER}" in found, "the message's text is gone"


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("power")
