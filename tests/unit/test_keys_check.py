"""`keys check`: what the machine says of each key, and when an open asks by itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.channel.untrusted import event_fields, parse_event
from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House
from sandbox.lifecycle.keycheck import SILENT, check_keys
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.preview import opening
from sandbox.model.custody import Custody, Rule, Where
from sandbox.model.errors import MailboxError
from tests.unit.fakes import BERT, NAME, OWN, SETTINGS, World, make_house, make_wish


def problems(house: House) -> dict[str, str]:
    return {each.fingerprint: each.problem for each in check_keys(house, NAME)}


def test_each_key_is_told_of(world: World, house: House) -> None:
    onboard(house, make_wish())
    open_mailbox(house, NAME, headless=True)
    assert problems(house) == {OWN: "", BERT: ""}
    world.guest.keys = {BERT: "no accepted key for b@p.test"}
    assert problems(house) == {OWN: "", BERT: "no accepted key for b@p.test"}
    done = house.journal(NAME).read().last("keys check", "done")
    assert done is not None and done.facts == {"keys": 2, "failed": [BERT]}


def test_a_key_that_the_machine_is_silent_of_is_a_problem(world: World, house: House) -> None:
    onboard(house, make_wish())
    open_mailbox(house, NAME, headless=True)
    world.guest.keys = {OWN: None}
    assert problems(house) == {OWN: SILENT, BERT: ""}


def test_a_closed_mailbox_has_nobody_to_try_its_keys(house: House) -> None:
    onboard(house, make_wish())
    with pytest.raises(MailboxError) as caught:
        check_keys(house, NAME)
    assert caught.value.code == "not-open"


def test_a_machine_that_fails_says_why_and_stays_open(world: World, house: House) -> None:
    onboard(house, make_wish())
    open_mailbox(house, NAME, headless=True)
    world.guest.error = ("check-unknown", "this mail client cannot try its keys")
    with pytest.raises(MailboxError) as caught:
        check_keys(house, NAME)
    assert (caught.value.code, caught.value.details) == (
        "check-failed",
        "this mail client cannot try its keys",
    )
    assert house.journal(NAME).read().pending() is None
    assert len(world.state["machines"]) == 1


def updated(world: World) -> None:
    (world.root / "image-id").write_text("fedcba9876543210")


def test_the_first_open_with_another_image_tries_the_keys(world: World, house: House) -> None:
    onboard(house, make_wish())
    world.guest.keys = {BERT: "broken"}
    for _ in range(2):
        seconds = open_mailbox(house, NAME, headless=True).facts["seconds"]
        close(house, NAME)
        assert "prove" not in seconds
    updated(world)
    assert "prove" in [step.id for step in opening(house, NAME).steps]
    assert "prove" in open_mailbox(house, NAME, headless=True).facts["seconds"]
    assert [text for text in world.warned if "broken" in text and BERT in text]
    close(house, NAME)
    assert "prove" not in open_mailbox(house, NAME, headless=True).facts["seconds"]


def test_a_machine_that_cannot_try_is_open_all_the_same(world: World, house: House) -> None:
    onboard(house, make_wish())
    open_mailbox(house, NAME, headless=True)
    close(house, NAME)
    updated(world)
    world.faults["warden.tell check"] = MailboxError("No answer.", code="machine-silent")
    assert "prove" in open_mailbox(house, NAME, headless=True).facts["seconds"]
    assert "No answer." in world.warned


@pytest.mark.parametrize(
    "changes",
    [
        {"key": KeyChoice()},
        {"settings": replace(SETTINGS, custody=Custody(Where.HOST, sign=Rule(ask=True)))},
    ],
)
def test_an_open_asks_for_no_key_and_puts_no_questions(world: World, changes: dict) -> None:  # type: ignore[type-arg]
    onboard(make_house(world), make_wish(**changes))
    open_mailbox(make_house(world), NAME, headless=True)
    close(make_house(world), NAME)
    updated(world)
    house = make_house(world)
    assert "prove" not in open_mailbox(house, NAME, headless=True).facts["seconds"]


# -- what a machine may say -----------------------------------------------------------------------


def event(**fields: object) -> bytes:
    return json.dumps({"event": "checked", **fields}).encode()


def test_an_answer_is_taken_as_it_was_said() -> None:
    parsed = parse_event(event(key=OWN, problem="a\x1b[31m b\n\u202ec"))
    assert parsed is not None
    assert (parsed.kind, parsed.name, parsed.message) == ("checked", OWN, "a b c")
    assert parse_event(json.dumps(event_fields(parsed)).encode()) == parsed


@pytest.mark.parametrize(
    "fields",
    [
        {"key": OWN},
        {"problem": ""},
        {"key": OWN.lower(), "problem": ""},
        {"key": OWN[:-1], "problem": ""},
        {"key": OWN + "0" * 23, "problem": ""},
        {"key": f"{OWN}\n", "problem": ""},
        {"key": OWN, "problem": None},
        {"key": OWN, "problem": "", "more": 1},
        {"key": [OWN], "problem": ""},
    ],
)
def test_other_answers_are_none(fields: dict[str, object]) -> None:
    assert parse_event(event(**fields)) is None


@given(st.text(), st.text())
def test_no_answer_steers_a_terminal(key: str, problem: str) -> None:
    for name in (key, OWN):
        parsed = parse_event(event(key=name, problem=problem))
        assert parsed is None or (parsed.name == OWN and parsed.message.isprintable())
