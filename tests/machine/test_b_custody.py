"""A private key that stays on the host, used by real machines through the whole line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from demo.mailserver import CUSTOMER
from demo.main import onboard_arguments
from sandbox.host.storage import suspend_problem
from tests.machine import proofs
from tests.machine.conftest import NAME, World

SPLIT = "kunde-split"


@pytest.fixture(scope="module")
def split(world: World) -> Iterator[World]:
    """The world with the same customer in a mailbox whose key stays here, open in Thunderbird."""
    world.mailbox("close", NAME)
    arguments = onboard_arguments(world.server, world.customer, world.partner, custody="host")
    password = world.server.password(CUSTOMER).encode() + b"\n"
    world.mailbox("onboard", SPLIT, *arguments, input=password)
    world.mailbox("open", SPLIT, "--headless")
    yield world
    world.mailbox("shred", SPLIT, "--yes")


def test_mail_is_read_and_answered_with_a_key_that_is_not_there(split: World) -> None:
    letter = proofs.reads_a_new_letter(split, SPLIT, "thunderbird")
    proofs.answers(split, SPLIT, "thunderbird", letter)
    proofs.keys_serve(split, SPLIT)
    assert proofs.uses(split, SPLIT) == {"decrypt", "sign"}
    assert proofs.private_keys_in(split, SPLIT) == []


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


@pytest.fixture(scope="module")
def new_key(split: World) -> str:
    """The mailbox has got another key, and the correspondent has learnt it from the text."""
    text = split.mailbox("keys", "rotate", SPLIT).text
    block = re.search("-----BEGIN PGP PUBLIC KEY BLOCK-----.*-----END[^\n]*-----", text, re.DOTALL)
    assert block is not None, text
    fingerprint = split.partner.learn(block[0], certify=True)
    assert fingerprint != split.customer.fingerprint
    split.mailbox("close", SPLIT)  # as docs/keys.md says, the mail client learns it when it starts
    split.mailbox("open", SPLIT, "--headless")
    return fingerprint


def test_a_new_key_signs_and_the_old_one_goes_on_reading(split: World, new_key: str) -> None:
    letter = proofs.reads_a_new_letter(split, SPLIT, "thunderbird")  # encrypted to the old one
    proofs.answers(split, SPLIT, "thunderbird", letter, signer=new_key)
    proofs.keys_serve(split, SPLIT)
    assert proofs.private_keys_in(split, SPLIT) == []


@pytest.fixture(scope="module")
def evolution(split: World, new_key: str) -> World:
    """The same mailbox in Evolution; nothing but the client has changed."""
    split.mailbox("image", "build", "evolution")
    proofs.change_client(split, SPLIT, "thunderbird", "evolution")
    split.mailbox("open", SPLIT, "--headless")
    return split


def test_evolution_passes_the_same_proof(evolution: World, new_key: str) -> None:
    letter = proofs.reads_a_new_letter(evolution, SPLIT, "evolution")
    proofs.answers(evolution, SPLIT, "evolution", letter, signer=new_key)
    proofs.keys_serve(evolution, SPLIT)
    assert proofs.private_keys_in(evolution, SPLIT) == []


def test_a_resumed_machine_may_ask_again(evolution: World) -> None:
    problem = suspend_problem()
    if problem:
        pytest.skip(problem)
    evolution.mailbox("suspend", SPLIT)
    assert not list((evolution.session.home / "run").glob("*"))  # no custodian is left
    opened = evolution.mailbox("open", SPLIT, "--headless", "--json")
    assert json.loads(opened.stdout)["facts"]["resumed"]
    proofs.reads_a_new_letter(evolution, SPLIT, "evolution")
