"""Asks an account's servers, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sandbox.lifecycle.house import House
from sandbox.model.account import Account
from sandbox.model.dav import Collection, Kind, Named, Password
from sandbox.model.secrets import DAV_PASSWORD, MAIL_PASSWORD

# What opens a collection, as the keyring has it.
_KINDS = {Password.MAIL: MAIL_PASSWORD, Password.OWN: DAV_PASSWORD}


def check_account(house: House, account: Account, mail: str, own: str) -> tuple[Account, Any]:
    """Log in everywhere; the account with its collections as the servers know them, and facts.

    `own` is the password of those calendars and address books that have one of their own.
    """
    house.progress.step("Checking the servers and the login")
    authorities = "\n".join(account.ca) or None
    checked = house.servers.check(account.imap, account.smtp, account.login, mail, authorities)
    if not account.collections:
        return account, checked

    def wanted(kind: Kind, each: Collection) -> Named:
        password = own if each.password is Password.OWN else mail
        return Named(kind, each, each.login or account.login, password)

    house.progress.step("Looking for calendars and address books")
    calendars = [wanted(Kind.CALENDAR, each) for each in account.calendars]
    books = [wanted(Kind.ADDRESS_BOOK, each) for each in account.address_books]
    found = house.servers.collections([*calendars, *books], authorities)
    count = len(calendars)
    found_calendars, found_books = _once(found[:count]), _once(found[count:])
    return replace(account, calendars=found_calendars, address_books=found_books), checked


def check_passwords(house: House, account: Account, given: Mapping[str, str]) -> Any:
    """Log in with the passwords that were given, by their kind, and only where they belong."""
    authorities = "\n".join(account.ca) or None
    checked = None
    house.progress.step("Checking the servers and the login")
    if MAIL_PASSWORD in given:
        word = given[MAIL_PASSWORD]
        checked = house.servers.check(account.imap, account.smtp, account.login, word, authorities)
    wanted = [
        Named(kind, each, each.login or account.login, given[_KINDS[each.password]])
        for kind, collections in (
            (Kind.CALENDAR, account.calendars),
            (Kind.ADDRESS_BOOK, account.address_books),
        )
        for each in collections
        if _KINDS[each.password] in given
    ]
    if wanted:
        house.servers.collections(wanted, authorities)
    return checked


def _once(found: Iterable[tuple[Collection, ...]]) -> tuple[Collection, ...]:
    return tuple(dict.fromkeys(each for some in found for each in some))
