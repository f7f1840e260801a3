"""What every mail client must show in every custody: one proof for all of them."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from demo.mailserver import CORRESPONDENT, CUSTOMER
from demo.main import SECRETS, message_id, prove
from tests.machine.conftest import World


@dataclass(frozen=True)
class Letter:
    """A message: its Message-ID, and a word of its body that nothing else has."""

    id: str
    canary: str


def reads_a_new_letter(world: World, name: str, client: str) -> Letter:
    """Encrypted mail that comes now is shown, and its signature is good."""
    canary = f"canary-{secrets.token_hex(8)}"
    letter = world.partner.letter(world.customer, "Vertraulich", f"Der Entwurf: {canary}\n")
    world.server.deliver(letter, CUSTOMER)
    proof = prove(world.session, name, client=client)
    proof.facts(messages=len(world.server.messages(CUSTOMER)))
    expected = {"encrypted": "ok", "signed": "verified"}
    shown = proof.open(message_id=message_id(letter), expect=expected, text=canary)
    assert canary in shown.body, shown
    assert (shown.encrypted, shown.signed) == ("ok", "verified")
    assert not proof.dialogs()
    return Letter(message_id(letter), canary)


def answers(world: World, name: str, client: str, letter: Letter, *, signer: str = "") -> None:
    """A reply is signed and encrypted by itself, as the correspondent's GnuPG finds.

    `signer` is the fingerprint of the mailbox's key when it is not the one it began with.
    """
    text = f"Einverstanden-{secrets.token_hex(4)}"
    before = len(world.server.messages(CORRESPONDENT))
    proof = prove(world.session, name, client=client)
    composed = proof.reply(text, message_id=letter.id, of=letter.canary)
    assert composed.encrypt and composed.sign, composed
    arrived = world.server.wait_for_messages(CORRESPONDENT, before + 1, deadline_s=120)[-1]
    assert text.encode() not in arrived
    reading = world.partner.read(arrived)
    assert reading.decrypted and text in reading.text
    expected = signer or world.customer.fingerprint
    assert (reading.signature, reading.signer) == ("good", expected)


def keys_serve(world: World, name: str) -> None:
    """The client signs and encrypts with each key, and reads that again."""
    said = json.loads(world.mailbox("keys", "check", name, "--json").stdout)
    assert [(each["role"], each["problem"]) for each in said] == [
        ("own", ""),
        ("correspondent", ""),
    ]


def private_keys_in(world: World, name: str) -> list[str]:
    """Where in the machine a private key is, its volume included."""
    return world.mailbox("run", name, "--root", "--", "sh", "-c", SECRETS).text.split()


def uses(world: World, name: str) -> set[str]:
    """What the key on this computer was used for."""
    listed: list[dict[str, Any]] = json.loads(
        world.mailbox("keys", "activity", name, "--json").stdout
    )
    return {use["operation"] for use in listed if use["outcome"] == "done"}


def change_client(world: World, name: str, old: str, new: str) -> None:
    """Edit the profile of the closed mailbox as a person would."""
    world.mailbox("close", name)
    world.session.env["EDITOR"] = f'sed -i s/"{old}"/"{new}"/'
    world.mailbox("edit", name)
    assert json.loads(world.mailbox("show", name, "--json").stdout)["client"] == new
