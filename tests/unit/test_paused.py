"""A machine that QEMU paused because the disk was full goes on; nothing of it is thrown away."""

from __future__ import annotations

from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from tests.unit.fakes import NAME, World, make_wish


def test_open_lets_a_paused_machine_go_on(house: House, world: World) -> None:
    onboard(house, make_wish())
    open_mailbox(house, NAME, headless=True)
    with world.change("test") as state:
        state["machines"][house.domain(NAME)]["state"] = "paused"
        volume = state["machines"][house.domain(NAME)]["volume"]
    open_mailbox(house, NAME, headless=True)
    machine = world.state["machines"][house.domain(NAME)]
    assert machine["state"] == "open" and machine["volume"] == volume
