"""A mailbox's keys: listed with what is wrong with them, accepted and no longer accepted."""

from __future__ import annotations

import time

import pytest

from sandbox.lifecycle import preview
from sandbox.lifecycle.correspondents import add, from_user, look_into
from sandbox.lifecycle.house import House
from sandbox.lifecycle.keys import list_keys, remove, warn_of_keys
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.model.errors import MailboxError
from sandbox.model.offers import Source
from tests.unit.fakes import BERT, NAME, OWN, World, make_wish, offer

CARLA = "C" * 40


def correspondents(house: House) -> list[str]:
    return [each.fingerprint for each in house.records.load(NAME).keys.correspondents]


def test_own_and_others_keys_are_listed(house: House) -> None:
    onboard(house, make_wish())
    listed = list_keys(house, NAME)
    assert [(each.role, each.fingerprint) for each in listed] == [
        ("own", OWN),
        ("correspondent", BERT),
    ]
    assert [each.problem for each in listed] == ["", ""]


def test_a_key_is_accepted_and_reaches_the_machine(house: House, world: World) -> None:
    onboard(house, make_wish())
    world.keys[CARLA] = ("carla@p.test", "")
    (found,) = look_into(house, from_user(house, [CARLA]))
    result = add(house, NAME, found.offers)
    assert correspondents(house) == [BERT, CARLA]
    assert result.facts["accepted"][0]["addresses"] == ("carla@p.test",)
    add(house, NAME, [offer(CARLA, "carla@neu.test")])
    assert correspondents(house) == [BERT, CARLA]
    open_mailbox(house, NAME, headless=True)
    sent = world.desired[-1]["openpgp"]["correspondents"]
    assert [(each["fingerprint"], each["addresses"]) for each in sent][-1] == (
        CARLA,
        ["carla@neu.test"],
    )
    assert remove(house, NAME, CARLA).facts["open"] is True
    assert correspondents(house) == [BERT]


@pytest.mark.parametrize("content", [b"junk", b"secret " + CARLA.encode() + b" c@p.test"])
def test_what_is_no_key_is_refused(house: House, content: bytes) -> None:
    with pytest.raises(MailboxError) as refused:
        look_into(house, [Source("the file", content)])
    assert refused.value.code == "key-unusable" and "the file: " in refused.value.brief


def test_a_key_that_gnupg_lacks_is_said(house: House) -> None:
    with pytest.raises(MailboxError) as refused:
        from_user(house, [BERT, CARLA])
    assert refused.value.code == "key-not-found"


def test_what_is_found_for_an_address_is_accepted_for_it_alone(house: House) -> None:
    onboard(house, make_wish())
    add(house, NAME, [offer(CARLA, "c@p.test", found_for="c@p.test")])
    add(house, NAME, [offer(CARLA, "c@p.test", found_for="carla@p.test")])
    (known,) = house.records.load(NAME).keys.correspondents[1:]
    assert known.addresses == ("c@p.test", "carla@p.test")


def test_many_are_accepted_at_once(house: House, world: World) -> None:
    onboard(house, make_wish())
    many = [offer(f"{number:040X}", f"{number}@p.test") for number in range(300)]
    world.labels.clear()
    add(house, NAME, many)
    assert len(correspondents(house)) == 301
    assert world.labels.count("before keyring.add_correspondents") == 1
    open_mailbox(house, NAME, headless=True)
    assert len(world.desired[-1]["openpgp"]["correspondents"]) == 301


def test_the_own_key_is_no_correspondents(house: House) -> None:
    onboard(house, make_wish())
    with pytest.raises(MailboxError, match="own key"):
        add(house, NAME, [offer(OWN, "anna@kunde.test")])
    with pytest.raises(MailboxError, match="no correspondent"):
        remove(house, NAME, OWN)
    assert correspondents(house) == [BERT]


def test_keys_that_end_soon_or_are_missing_are_warned_of(house: House, world: World) -> None:
    onboard(house, make_wish())
    world.expiries[OWN] = int(time.time()) + 20 * 24 * 3600
    (house.paths.gnupg(NAME) / f"{BERT}.public").unlink()
    world.warned.clear()
    warn_of_keys(house, list_keys(house, NAME))
    assert len(world.warned) == 2
    assert "expires on" in world.warned[0] and "is not in" in world.warned[1]
    world.expiries[OWN] = int(time.time()) + 40 * 24 * 3600
    world.warned.clear()
    warn_of_keys(house, [each for each in list_keys(house, NAME) if each.role == "own"])
    assert world.warned == []


def test_open_warns_before_a_key_expires(house: House, world: World) -> None:
    onboard(house, make_wish())
    world.expiries[OWN] = int(time.time()) + 24 * 3600
    world.warned.clear()
    open_mailbox(house, NAME, headless=True)
    (warned,) = (each for each in world.warned if "expires on" in each)
    assert warned.startswith(f"The mailbox's own key: {OWN} expires on ")


def test_what_would_be_done_to_keys_is_shown_and_not_done(house: House) -> None:
    onboard(house, make_wish())
    new = [offer(CARLA, "carla@p.test")]
    before = house.journal(NAME).read()
    assert [step.id for step in preview.adding_keys(house, NAME, new).steps] == ["take", "profile"]
    assert [step.id for step in preview.removing_key(house, NAME, BERT).steps] == ["profile"]
    assert correspondents(house) == [BERT]
    assert house.journal(NAME).read() == before
    with pytest.raises(MailboxError, match="no correspondent"):
        preview.removing_key(house, NAME, CARLA)
    with pytest.raises(MailboxError, match="own key"):
        preview.adding_keys(house, NAME, [offer(OWN, "anna@kunde.test")])
