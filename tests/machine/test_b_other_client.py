"""The same mailbox with Evolution: one line of the profile changes, mail and keys are there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.davserver import ADDRESS_BOOK, CALENDAR
from demo.mailserver import CORRESPONDENT, CUSTOMER
from demo.main import CONTACT, EVENT, prove
from demo.smime import SmimeAuthority
from tests.machine import proofs
from tests.machine.conftest import NAME, World


@pytest.fixture(scope="module")
def evolution(world: World) -> Iterator[World]:
    """The world's mailbox, open in Evolution; afterwards it has its former client again."""
    world.mailbox("image", "build", "evolution")
    proofs.change_client(world, NAME, "thunderbird", "evolution")
    try:
        facts = json.loads(world.open().stdout)["facts"]
        assert facts["warm"], facts["cold_reason"]
        yield world
    finally:
        proofs.change_client(world, NAME, "evolution", "thunderbird")


def test_the_other_client_reads_and_answers_encrypted_mail(evolution: World) -> None:
    proof = prove(evolution.session, NAME, client="evolution")
    expected = {"encrypted": "ok", "signed": "verified"}
    shown = proof.open(message_id=evolution.letter, expect=expected, text=evolution.canary)
    assert evolution.canary in shown.body
    letter = proofs.Letter(evolution.letter, evolution.canary)
    proofs.answers(evolution, NAME, "evolution", letter)
    assert proofs.private_keys_in(evolution, NAME)  # here it is on the volume


def test_the_first_open_with_another_image_proves_the_keys(evolution: World) -> None:
    entries = json.loads(evolution.mailbox("log", NAME, "--json").stdout)["entries"]
    said = [each["facts"] for each in entries if each.get("step") == "prove" and each.get("facts")]
    assert said[-1] == {"keys": 2, "failed": []}


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


def test_a_mail_for_its_certificate_is_read_and_verified(evolution: World, tmp_path: Path) -> None:
    authority, canary = SmimeAuthority(), f"Geheim-{secrets.token_hex(8)}"
    anna, bert = authority.issue(CUSTOMER), authority.issue(CORRESPONDENT)
    file, ca = tmp_path / "anna.p12", tmp_path / "ca.pem"
    file.write_bytes(anna.pkcs12("from the provider"))
    ca.write_text(authority.pem)
    options = ("--passphrase-fd", "0", "--ca", str(ca))
    evolution.mailbox("keys", "smime", NAME, str(file), *options, input=b"from the provider\n")
    sealed = bert.letter(CUSTOMER, "Sealed by Bert", canary, anna)
    try:
        evolution.server.deliver(sealed, CUSTOMER)
        evolution.mailbox("close", NAME)
        evolution.open()
        proof = prove(evolution.session, NAME, client="evolution")
        expected = {"encrypted": "ok", "signed": "verified"}
        shown = proof.open(subject="Sealed by Bert", expect=expected, text=canary)
        assert (shown.technology, canary in shown.body) == ("S/MIME", True)
    finally:
        evolution.mailbox("keys", "smime", NAME, "--remove")
