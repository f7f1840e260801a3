"""A private key that stays on the host, used by a real machine through the whole line."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from demo.mailserver import CORRESPONDENT, CUSTOMER
from demo.main import message_id, onboard_arguments, prove
from tests.machine.conftest import NAME, World

SPLIT = "kunde-split"


@pytest.fixture(scope="module")
def split(world: World) -> Iterator[World]:
    """The world with the same customer in a mailbox whose key stays here, open."""
    world.mailbox("close", NAME)
    arguments = onboard_arguments(world.server, world.customer, world.partner)
    password = world.server.password(CUSTOMER).encode() + b"\n"
    world.mailbox("onboard", SPLIT, "--custody", "host", *arguments, input=password)
    world.mailbox("open", SPLIT, "--headless")
    yield world
    world.mailbox("shred", SPLIT, "--yes")


def test_mail_is_read_and_answered_with_a_key_that_is_not_there(split: World) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    letter = split.partner.letter(split.customer, "Geteilt", f"Der Entwurf: {canary}\n")
    split.server.deliver(letter, CUSTOMER)
    before = len(split.server.messages(CORRESPONDENT))
    proof = prove(split.session, SPLIT)
    count = len(split.server.messages(CUSTOMER))
    split.mailbox("open", SPLIT, "--headless")
    proof.facts(messages=count)
    shown = proof.open(
        message_id=message_id(letter), expect={"encrypted": "ok", "signed": "verified"}
    )
    assert canary in shown.body
    proof.reply("Einverstanden.", message_id=message_id(letter))
    arrived = split.server.wait_for_messages(CORRESPONDENT, before + 1, deadline_s=120)[-1]
    reading = split.partner.read(arrived)
    assert (reading.decrypted, reading.signature) == (True, "good")
    assert reading.signer == split.customer.fingerprint
    uses = json.loads(split.mailbox("keys", "activity", SPLIT, "--json").stdout)
    done = {use["operation"] for use in uses if use["outcome"] == "done"}
    assert done == {"decrypt", "sign"}


def test_the_machine_finds_no_private_key_in_itself(split: World) -> None:
    looked = split.mailbox(
        *("run", SPLIT, "--root", "--", "sh", "-c"),
        "find / -xdev -name '*.key' -path '*private-keys*' 2>/dev/null;"
        "find /home /run -name secring.gpg -size +0 2>/dev/null;"
        "grep -rlE 'PGP PRIVATE KEY|protected-private-key' /home /run 2>/dev/null; true",
    )
    assert looked.text.split() == []


def test_what_the_machine_may_not_ask_is_refused(split: World) -> None:
    program = (
        "import socket\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(60)\n"
        "s.connect('/run/mailbox/agent.sock')\n"
        "s.sendall(b'KEYWRAP_KEY --export\\nEXPORT_KEY X\\nGENKEY\\nKEYINFO --list\\nBYE\\n')\n"
        "print(''.join(iter(lambda: s.recv(4096).decode(), '')))\n"
    )
    answers = split.mailbox("run", SPLIT, "--", "python3", "-", input=program.encode()).text
    assert [line.split()[0] for line in answers.splitlines() if line] == [
        *("OK", "ERR", "ERR", "ERR", "ERR", "OK")
    ]
