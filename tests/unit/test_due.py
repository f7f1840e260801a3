"""Mailboxes whose retention has ended: found by their day, shredded by `shred --due`."""

from __future__ import annotations

import json
import sys
from datetime import date

import pytest
from click.testing import CliRunner

from sandbox.cli import ending
from sandbox.cli.app import cli
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.retain import due, retain
from sandbox.model.errors import Exit
from sandbox.state.retentions import today
from tests.unit.fakes import NAME, World, make_wish

DAY = date(2031, 12, 31)


def test_a_mailbox_is_due_from_its_day_on(house: House) -> None:
    onboard(house, make_wish())
    assert due(house, DAY) == []
    retain(house, NAME, DAY, "tax law", date(2026, 1, 1))
    assert due(house, date(2031, 12, 30)) == []
    assert due(house, DAY) == [NAME]


def test_one_that_cannot_be_read_is_told_and_hides_no_other(house: House, world: World) -> None:
    onboard(house, make_wish())
    retain(house, NAME, DAY, "tax law", date(2026, 1, 1))
    house.paths.profile(NAME).write_text("nonsense")
    world.warned.clear()
    assert due(house, DAY) == []
    assert world.warned and NAME in world.warned[0]


def test_due_shreds_those_and_only_those(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    onboard(house, make_wish())
    monkeypatch.setattr(ending, "compose", lambda _printer: house)
    said = CliRunner().invoke(cli, ["shred", "--due", "--yes"])
    assert said.exit_code == Exit.OK and "No retention has ended." in said.output
    retain(house, NAME, DAY, "tax law", date(2026, 1, 1))
    real = today  # this module is among those that are changed
    for module in list(sys.modules.values()):
        if getattr(module, "today", None) is real:
            monkeypatch.setattr(module, "today", lambda: DAY)
    planned = CliRunner().invoke(cli, ["shred", "--due", "--dry-run", "--json"])
    assert [each["name"] for each in json.loads(planned.stdout)["plans"]] == [NAME]
    assert house.records.find(NAME) is not None
    done = CliRunner().invoke(cli, ["shred", "--due", "--yes", "--json"])
    assert done.exit_code == Exit.OK, done.output
    assert [each["name"] for each in json.loads(done.stdout)["results"]] == [NAME]
    assert house.records.find(NAME) is None
    assert due(house, DAY) == []


@pytest.mark.parametrize("wrong", [["shred"], ["shred", NAME, "--due"]])
def test_it_wants_a_name_or_due(wrong: list[str]) -> None:
    assert CliRunner().invoke(cli, wrong).exit_code == Exit.USAGE
