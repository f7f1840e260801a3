"""Calendars and address books in a Thunderbird on this machine, against a real Radicale."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from demo.correspondent import Person
from demo.davserver import ADDRESS_BOOK, CALENDAR, DavServer
from demo.desired import desired_state
from demo.mailserver import CUSTOMER, MailServer
from demo.native import NativeThunderbird, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")
pytest.importorskip("radicale")

Json = dict[str, Any]
EVENT = "Übergabe beim Kunden"
CONTACT = "Bert Partner <bert@partner.test>"


@dataclass
class World:
    server: MailServer
    dav: DavServer
    anna: Person
    thunderbird: NativeThunderbird

    def desired(self, **changes: Any) -> Json:
        return {**desired_state(self.server, self.anna, (), dav=self.dav), **changes}

    def open(self, **changes: Any) -> list[str]:
        """Opens, and returns the codes of all that was not as wished."""
        events = self.thunderbird.open(self.desired(**changes))
        assert events[-1].get("name") == "ready", events
        return [event["code"] for event in events if event["event"] != "phase"]

    def reopen(self, **changes: Any) -> list[str]:
        self.thunderbird.close()
        return self.open(**changes)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        anna = stack.enter_context(Person("Anna Kundin", CUSTOMER))
        server = stack.enter_context(MailServer())
        dav = stack.enter_context(DavServer(server.credentials))
        dav.add_event("e1", EVENT)
        dav.add_contact("c1", "Bert Partner", "bert@partner.test")
        thunderbird = stack.enter_context(NativeThunderbird(local_names=server.names))
        yield World(server, dav, anna, thunderbird)


def test_what_the_server_has_is_seen_and_nothing_is_asked(world: World) -> None:
    assert world.open() == []
    found = world.thunderbird.proof.collections(entries=(EVENT, CONTACT))
    [calendar], [book] = found.calendars, found.address_books
    assert (calendar["name"], calendar["entries"]) == ("Termine", [EVENT])
    assert (calendar["colour"], calendar["default"]) == ("#2a7f62", True)
    assert (book["name"], book["entries"]) == ("Kontakte", [CONTACT])
    assert world.thunderbird.proof.dialogs() == []


def test_what_is_made_here_arrives_on_the_server(world: World) -> None:
    world.open()
    world.thunderbird.proof.collections(
        entries=("Rückruf", "Carla <carla@partner.test>"),
        add_event={"calendar": "Termine", "summary": "Rückruf"},
        add_contact={
            "address_book": "Kontakte",
            "name": "Carla",
            "address": "carla@partner.test",
        },
    )
    world.dav.wait_for(CALENDAR, "SUMMARY:Rückruf")
    world.dav.wait_for(ADDRESS_BOOK, "carla@partner.test")


def registered(world: World) -> list[str]:
    lines = world.thunderbird.profile_file("prefs.js").read_text().splitlines()
    wanted = ("calendar.registry.", "ldap_2.servers.", "mailbox.calendars", "mailbox.address_books")
    passing = ("token", "lastNotif", "carddav.uids")
    return sorted(
        line
        for line in lines
        if any(word in line for word in wanted) and not any(word in line for word in passing)
    )


def test_a_second_start_changes_nothing(world: World) -> None:
    world.open()
    world.thunderbird.close()
    before = registered(world)
    assert world.open() == []
    facts = world.thunderbird.proof.facts()
    assert len([each for each in facts.logins if each.startswith("https://dav.")]) == 1
    world.thunderbird.close()
    assert registered(world) == before


def test_a_changed_password_is_used_and_nothing_is_asked(world: World) -> None:
    world.open()
    before = world.dav.password
    world.dav.set_password("Neu-und-Anders")
    try:
        world.dav.add_event("e2", "Nach dem Wechsel")
        assert world.reopen() == []
        world.thunderbird.proof.collections(entries=("Nach dem Wechsel", CONTACT))
        assert world.thunderbird.proof.dialogs() == []
    finally:
        world.dav.set_password(before)
        assert world.reopen() == []


def test_a_server_that_is_away_is_a_warning_and_its_entries_stay(world: World) -> None:
    world.open()
    world.thunderbird.close()
    with world.dav.pause():
        assert world.open() == ["dav-not-reached"]
        assert world.thunderbird.proof.dialogs() == []
    assert world.reopen() == []


def test_what_is_named_no_more_is_gone(world: World) -> None:
    world.open()
    assert world.reopen(calendars=[]) == []
    found = world.thunderbird.proof.collections(entries=(CONTACT,))
    assert (found.calendars, len(found.address_books)) == ([], 1)
    assert world.open(calendars=[], address_books=[]) == []  # while it runs
    found = world.thunderbird.proof.collections()
    assert (found.calendars, found.address_books) == ([], [])
    assert not any("dav." in each for each in world.thunderbird.proof.facts().logins)
    assert world.open() == []
    world.thunderbird.proof.collections(entries=(EVENT, CONTACT))


def test_a_server_that_is_away_at_the_first_time_comes_later(world: World) -> None:
    world.reopen(calendars=[], address_books=[])
    world.thunderbird.close()
    with world.dav.pause():
        assert world.open() == ["dav-not-reached"]
        assert world.thunderbird.proof.dialogs() == []
    assert world.open() == []
    world.thunderbird.proof.collections(entries=(EVENT, CONTACT))


def test_a_new_name_is_taken_while_it_runs(world: World) -> None:
    world.open()
    desired = copy.deepcopy(world.desired())
    for entry in (*desired["calendars"], *desired["address_books"]):
        entry["name"] = "Umbenannt"
    assert world.open(**{key: desired[key] for key in ("calendars", "address_books")}) == []
    found = world.thunderbird.proof.collections(entries=(EVENT, CONTACT))
    assert [each["name"] for each in (*found.calendars, *found.address_books)] == ["Umbenannt"] * 2


def test_no_password_lies_in_the_open(world: World) -> None:
    world.open()
    world.thunderbird.close()
    secret = world.dav.password.encode()
    folder = world.thunderbird.home.parent
    for path in (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        content = path.read_bytes() if "thunderbird-bin" not in path.name else b""
        assert secret not in content, path
