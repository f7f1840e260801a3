"""What runs in the name of a mailbox that is gone, and who ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.orphans import orphans
from sandbox.lifecycle.preview import repairing
from sandbox.lifecycle.settle import repair
from sandbox.model.custody import Custody, Where
from sandbox.model.errors import MailboxError
from sandbox.model.machine import domain_name
from tests.unit.fakes import NAME, SETTINGS, World, mails, make_wish

OTHER = "clientB"
HOST = replace(SETTINGS, custody=Custody(Where.HOST))


@pytest.fixture
def both(house: House) -> House:
    onboard(house, make_wish(settings=HOST))
    onboard(house, make_wish(OTHER))
    for name in (NAME, OTHER):
        open_mailbox(house, name, headless=True)
    return house


def test_mailboxes_that_exist_are_left_alone(both: House, world: World) -> None:
    assert orphans(both) == [] and repair(both, None) == []
    assert set(world.state["machines"]) == {domain_name(NAME), domain_name(OTHER)}


def test_one_whose_profile_is_gone_is_closed_and_keeps_its_mail(both: House, world: World) -> None:
    both.paths.profile(NAME).unlink()
    assert [plan.name for plan in repairing(both, None)] == [NAME]
    (done,) = repair(both, None)
    assert done.name == NAME and "no such mailbox" in done.summary
    state = world.state
    assert set(state["machines"]) == {domain_name(OTHER)}
    assert len(state["wardens"]) == 1 and state["custodians"] == {} and len(state["served"]) == 1
    assert not both.paths.machine(NAME).exists() and both.paths.machine(OTHER).exists()
    assert mails(both.paths.volume(NAME)) == 1
    assert repair(both, None) == [] and repairing(both, None) == []


def test_without_libvirt_the_rest_is_repaired(both: House, world: World) -> None:
    both.paths.profile(NAME).unlink()
    world.faults["machines.states"] = MailboxError("No libvirt.", code="libvirt-error")
    assert repair(both, None) == [] and any("No libvirt" in said for said in world.warned)


@pytest.mark.parametrize("name", ["gone", "n" * 60])
def test_a_runtime_folder_nobody_has_is_removed(house: House, world: World, name: str) -> None:
    folder = house.paths.machine(name)
    folder.mkdir(parents=True)
    (folder / "warden.log").touch()
    hidden = house.paths.runtime / ".0123"
    hidden.mkdir()
    repair(house, None)
    assert not folder.exists() and hidden.exists()


def test_an_unfinished_verb_of_one_that_is_gone_is_settled_once(both: House, world: World) -> None:
    both.journal(NAME).append("open", "begin", "1", facts={})
    both.paths.profile(NAME).unlink()
    assert [plan.name for plan in repairing(both, None)] == [NAME]
    assert [done.name for done in repair(both, None)] == [NAME]
