"""`switch`: one mailbox opened, the others suspended as their profiles wish."""

from __future__ import annotations

from dataclasses import replace

from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import Observation, observe_all
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.settle import settle_name
from sandbox.model.errors import MailboxError
from sandbox.model.machine import MachineState
from sandbox.model.profile import SUSPEND


def to_leave(observations: list[Observation], name: str) -> list[str]:
    """Which other mailboxes are to be suspended."""
    return [
        seen.name
        for seen in observations
        if seen.name != name
        and seen.machine is MachineState.OPEN
        and seen.profile is not None
        and seen.profile.settings.machine.on_close == SUSPEND
    ]


def switch(house: House, name: str, *, headless: bool) -> Result:
    """Suspend those that wish it, then open; one that cannot be left is said and stays."""
    known = settle_name(house, name)
    left = []
    for other in to_leave(observe_all(house), known):
        try:
            close(house, other)
            left.append(other)
        except MailboxError as error:
            house.progress.warn(f"{other}: {error.brief}")
    result = open_mailbox(house, known, headless=headless)
    return replace(result, verb="switch", facts={**result.facts, "left": left})
