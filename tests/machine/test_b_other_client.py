"""The same mailbox with Evolution: one line of the profile changes, mail and keys are there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from demo.davserver import ADDRESS_BOOK, CALENDAR
from demo.mailserver import CORRESPONDENT
from demo.main import CONTACT, EVENT, prove
from tests.machine.conftest import NAME, World


def change_client(world: World, old: str, new: str) -> None:
    """Edit the profile of the closed mailbox as a person would."""
    world.mailbox("close", NAME)
    world.session.env["EDITOR"] = f'sed -i s/"{old}"/"{new}"/'
    world.mailbox("edit", NAME)
    assert json.loads(world.mailbox("show", NAME, "--json").stdout)["client"] == new


@pytest.fixture(scope="module")
def evolution(world: World) -> Iterator[World]:
    """The world's mailbox, open in Evolution; afterwards it has its former client again."""
    world.mailbox("image", "build", "evolution")
    change_client(world, "thunderbird", "evolution")
    try:
        facts = json.loads(world.open().stdout)["facts"]
        assert facts["warm"], facts["cold_reason"]
        yield world
    finally:
        change_client(world, "evolution", "thunderbird")


def test_the_other_client_reads_and_answers_encrypted_mail(evolution: World) -> None:
    proof = prove(evolution.session, NAME, client="evolution")
    expected = {"encrypted": "ok", "signed": "verified"}
    shown = proof.open(message_id=evolution.letter, expect=expected)
    assert evolution.canary in shown.body
    assert not proof.dialogs()

    earlier = len(evolution.server.wait_for_messages(CORRESPONDENT, 0, deadline_s=10))
    composed = proof.reply("Aus-Evolution.", message_id=evolution.letter)
    assert composed.encrypt and composed.sign, composed
    messages = evolution.server.wait_for_messages(CORRESPONDENT, earlier + 1, deadline_s=120)
    assert b"Aus-Evolution" not in messages[-1]
    reading = evolution.partner.read(messages[-1])
    assert reading.decrypted
    assert "Aus-Evolution" in reading.text
    assert (reading.signature, reading.signer) == ("good", evolution.customer.fingerprint)


def test_calendar_and_address_book_come_along(evolution: World) -> None:
    proof = prove(evolution.session, NAME, client="evolution")
    proof.collections(
        entries=(EVENT, CONTACT, "Aus-dem-Evolution", "Carla <carla@partner.test>"),
        add_event={"calendar": "Termine", "summary": "Aus-dem-Evolution"},
        add_contact={
            "address_book": "Kontakte",
            "name": "Carla",
            "address": "carla@partner.test",
        },
    )
    evolution.dav.wait_for(CALENDAR, "SUMMARY:Aus-dem-Evolution")
    evolution.dav.wait_for(ADDRESS_BOOK, "carla@partner.test")
    assert not proof.dialogs()


def test_its_windows_are_the_mailboxs_own(evolution: World) -> None:
    facts = prove(evolution.session, NAME, client="evolution").facts(messages=1)
    assert facts.identity["address"] == "anna@kunde.test"
    assert facts.identities == 1
