"""Calendars and address books from the wish to the machine, and their password everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox.lifecycle.case import take_inventory
from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import Wish, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.recover import Means, recover
from sandbox.lifecycle.shred import shred
from sandbox.lifecycle.shredding import Order
from sandbox.lifecycle.suspend import suspend
from sandbox.model.dav import Collection, Password
from sandbox.model.errors import MailboxError
from sandbox.model.secrets import DAV_PASSWORD
from tests.unit.fakes import (
    ACCOUNT,
    CODES,
    DAV_WORD,
    NAME,
    PASSWORD,
    World,
    make_house,
    make_wish,
)

WORK = Collection("https://dav.kunde.test/anna/work/", "Work")
BOOKS = Collection("https://dav.kunde.test/")


def wish(password: Password = Password.OWN, word: str = DAV_WORD) -> Wish:
    """A wish with a calendar, and a server that knows the address books."""
    account = replace(
        ACCOUNT,
        calendars=(replace(WORK, password=password),),
        address_books=(replace(BOOKS, password=password),),
    )
    return make_wish(account=account, dav_password=word if password is Password.OWN else "")


@pytest.fixture
def onboarded(house: House) -> House:
    onboard(house, wish())
    return house


def secrets(world: World) -> set[str]:
    return {item.partition("/")[2] for item in world.state["vault"]}


def test_what_the_server_knows_is_written_down(onboarded: House) -> None:
    account = onboarded.records.load(NAME).account
    assert [each.url for each in account.calendars] == [WORK.url]
    assert [each.url for each in account.address_books] == ["https://dav.kunde.test/found/"]


def test_a_refused_login_leaves_nothing_behind(house: House, world: World) -> None:
    with pytest.raises(MailboxError, match="Wrong"):
        onboard(house, wish(word="wrong"))
    assert world.state["vault"] == {} and house.records.names() == []


def test_an_onboarding_that_fails_later_forgets_the_password(house: House, world: World) -> None:
    world.faults["volumes.create"] = MailboxError("Full.", code="disk-full")
    with pytest.raises(MailboxError, match="Full"):
        onboard(house, wish())
    assert world.state["vault"] == {}


@pytest.mark.parametrize(
    ("password", "word"), [(Password.OWN, DAV_WORD), (Password.MAIL, PASSWORD)]
)
def test_the_machine_is_sent_them_with_their_password(
    house: House, world: World, password: Password, word: str
) -> None:
    onboard(house, wish(password))
    open_mailbox(house, NAME, headless=True)
    sent = world.desired[-1]
    assert sent["calendars"] == [
        {"url": WORK.url, "name": "Work", "login": "anna@kunde.test", "password": word}
    ]
    assert sent["address_books"][0]["password"] == word
    assert sent["hosts"]["dav.kunde.test"] == "127.0.9.3"
    assert ("dav-password" in secrets(world)) is (password is Password.OWN)


def test_a_password_that_is_missing_is_never_replaced_by_the_mails(
    onboarded: House, world: World
) -> None:
    onboarded.vault.delete(onboarded.records.load(NAME).id, DAV_PASSWORD)
    with pytest.raises(MailboxError) as refused:
        open_mailbox(onboarded, NAME, headless=True)
    assert refused.value.code == "keyring-item-missing"
    assert "--dav-password-stdin" in refused.value.resolution
    assert world.desired == []


def test_a_changed_password_does_not_fit_a_suspended_machine(
    onboarded: House, world: World
) -> None:
    open_mailbox(onboarded, NAME, headless=True)
    suspend(onboarded, NAME)
    house = make_house(world)
    house.vault.put(house.records.load(NAME).id, DAV_PASSWORD, "another")
    result = open_mailbox(house, NAME, headless=True)
    assert result.facts["resumed"] is False
    assert world.desired[-1]["calendars"][0]["password"] == "another"


def test_recovering_asks_for_it(onboarded: House, world: World) -> None:
    identity = onboarded.records.load(NAME).id
    onboarded.vault.delete(identity, DAV_PASSWORD)
    with pytest.raises(MailboxError) as refused:
        recover(onboarded, NAME, Means(CODES[-1], lambda: PASSWORD))
    assert refused.value.code == "password-missing"
    given = Means(CODES[-1], lambda: PASSWORD, dav_password=lambda: DAV_WORD)
    assert recover(make_house(world), NAME, given).facts["secrets"] == [DAV_PASSWORD]
    assert onboarded.vault.get(identity, DAV_PASSWORD) == DAV_WORD


def test_it_is_a_copy_that_shredding_destroys(onboarded: House, world: World) -> None:
    open_mailbox(onboarded, NAME, headless=True)
    close(onboarded, NAME)
    assert "keyring:dav-password" in [each.id for each in take_inventory(onboarded, NAME)]
    shred(onboarded, NAME, Order())
    assert world.state["vault"] == {}
