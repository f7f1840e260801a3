"""`close`: the machine gone, its key out of memory. It is also the crash recovery of `open`."""

from __future__ import annotations

import shutil
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import Observation, observe
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import MachineState

# Emulated machines are slow to close a mail client; a hanging one is ended after this.
SHUTDOWN_DEADLINE_S = 90.0
_POWEROFF_DEADLINE_S = 20.0


def plan_close(seen: Observation) -> Plan:
    """The steps from what is seen to nothing: only what there is to do."""
    steps = []
    if seen.machine is MachineState.OPEN and seen.warden:
        steps.append(
            Step("shutdown", "Closing the mail client", "its last writes reach the volume")
        )
    if seen.warden:
        steps.append(Step("warden", "Ending the warden", "nothing reaches the machine any more"))
    if seen.machine is not MachineState.CLOSED:
        steps.append(Step("machine", "Ending the machine", "its memory held the key and the mail"))
    steps.append(Step("traces", "Clearing the runtime folder", "no secret, no socket stays"))
    return Plan("close", seen.name, tuple(steps))


def close(house: House, name: str) -> Result:
    """Close the mailbox; one that is closed stays so."""
    from sandbox.lifecycle.settle import settle_name

    known = settle_name(house, name)
    with house.locked(known, "close"):
        seen = observe(house, known)
        if is_closed(house, seen):
            return Result("close", known, f"{known} is closed.", {"already": True})
        clean = close_locked(house, seen)
    facts = {"already": False, "clean": clean}
    how = "" if clean else " It had to be ended hard; its file system is checked at the next open."
    return Result("close", known, f"{known} is closed.{how}", facts)


def close_locked(house: House, seen: Observation) -> bool:
    """Close under a lock that the caller holds; returns whether the guest ended by itself."""
    work = _Closing(house, seen.name)
    run(plan_close(seen), work.effects(), house.journal(seen.name), house.progress)
    after = observe(house, seen.name)
    if not is_closed(house, after):
        raise MailboxError(
            f"{seen.name} is not fully closed: the machine is {after.machine}.",
            resolution="Run `mailbox close` again; `mailbox doctor` checks libvirt.",
            code="not-closed",
            exit_code=Exit.MACHINE,
        )
    return work.clean


def is_closed(house: House, seen: Observation) -> bool:
    """Whether nothing of an open machine is left and no open or close is unfinished."""
    return (
        seen.machine is MachineState.CLOSED
        and not seen.warden
        and (seen.pending is None or seen.pending.verb not in ("open", "close"))
        and not house.paths.machine(seen.name).exists()
    )


class _Closing:
    """The effects of one close."""

    def __init__(self, house: House, name: str) -> None:
        self.clean = False
        self._house = house
        self._name = name

    def effects(self) -> dict[str, Any]:
        return {
            "shutdown": self._shut_down,
            "warden": self._end_warden,
            "machine": self._end_machine,
            "traces": self._clear,
        }

    def _shut_down(self) -> dict[str, Any]:
        warden = self._house.wardens.find(self._house.paths.control_socket(self._name))
        try:
            asked = warden.shutdown(SHUTDOWN_DEADLINE_S)
        except MailboxError as error:
            self._house.progress.warn(f"The machine did not close by itself: {error.brief}")
            return {"clean": False, "code": error.code}
        domain = self._house.domain(self._name)
        self.clean = asked and self._house.machines.wait_gone(domain, _POWEROFF_DEADLINE_S)
        return {"clean": self.clean}

    def _end_warden(self) -> None:
        control = self._house.paths.control_socket(self._name)
        try:
            self._house.wardens.find(control).stop()
        except MailboxError:
            self._house.wardens.kill(control)

    def _end_machine(self) -> None:
        self._house.machines.destroy(self._house.domain(self._name))

    def _clear(self) -> None:
        self._house.machines.forget_secret(self._house.paths.volume(self._name))
        shutil.rmtree(self._house.paths.machine(self._name), ignore_errors=True)
