"""`close`: the machine gone, its key out of memory. It is also the crash recovery of `open`."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import Any

from sandbox.lifecycle import kept
from sandbox.lifecycle.engine import Plan, Step, StoppedError, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import Observation, observe
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import MachineState, profile_of_domain
from sandbox.model.names import name_problem, same_name
from sandbox.model.profile import SUSPEND
from sandbox.state import files

# Emulated machines are slow to close a mail client; a hanging one is ended after this.
SHUTDOWN_DEADLINE_S = 90.0
_POWEROFF_DEADLINE_S = 20.0
# What a guest may warn of while it closes, and what it means.
_WARNINGS = {
    "client-killed": "The mail client did not close in time and was ended; what was typed last "
    "may be missing.",
    "volume-busy": "The volume could not be put away cleanly; its file system is checked at the "
    "next open.",
}


@dataclass(frozen=True)
class Closing:
    """How a close went: `clean` when the guest put everything away and ended by itself."""

    clean: bool
    warnings: tuple[dict[str, str], ...] = ()

    @property
    def remark(self) -> str:
        """What was not clean, for the summary; empty when all was."""
        told = [_WARNINGS[each["code"]] for each in self.warnings if each["code"] in _WARNINGS]
        hard = "It had to be ended hard; its file system is checked at the next open."
        return "" if self.clean else " ".join(dict.fromkeys(told)) or hard


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


def close(house: House, name: str, *, shutdown: bool = False) -> Result:
    """Close the mailbox as its profile wishes; one that is closed stays so.

    With `shutdown` it is never suspended, and a suspended machine is discarded.
    """
    known = _known_name(house, name)
    with house.locked(known, "close"):
        seen = observe(house, known)
        if shutdown and seen.remains and seen.machine is MachineState.CLOSED:
            kept.discard(house, known)
            gone = {"already": False, "clean": True, "warnings": []}
            return Result("close", known, f"{known} is closed.", gone)
        if is_closed(house, seen):
            return Result("close", known, f"{known} is {seen.state}.", {"already": True})
        if not shutdown and _suspended_instead(house, seen):
            put_away = {"already": False, "clean": True, "suspended": True, "warnings": []}
            return Result("close", known, f"{known} is closed; it is suspended.", put_away)
        ended = close_locked(house, observe(house, known))
    facts = {"already": False, "clean": ended.clean, "warnings": list(ended.warnings)}
    return Result("close", known, f"{known} is closed. {ended.remark}".strip(), facts)


def names_to_close(house: House) -> list[str]:
    """Every profile, and every machine of ours whose profile's file is gone."""
    names = [each for each in house.records.names() if not name_problem(each)]
    return [*names, *(each for each in _running_names(house) if each not in names)]


def _known_name(house: House, name: str) -> str:
    """The name as it is written; a machine whose profile's file is gone can still be closed."""
    from sandbox.lifecycle.settle import settle_name

    try:
        return settle_name(house, name)
    except MailboxError as error:
        if error.code not in ("profile-unknown", "profile-shredded"):
            raise
        left: list[str] = []
        with contextlib.suppress(MailboxError):  # what is said is that the name is not known
            left = [each for each in _running_names(house) if same_name(each, name)]
        if not left:
            raise
        return left[0]


def _running_names(house: House) -> list[str]:
    named = (profile_of_domain(each, house.paths.home_tag) for each in house.machines.states())
    return sorted(name for name in named if name and not name_problem(name))


def _suspended_instead(house: House, seen: Observation) -> bool:
    """Suspend where the profile wishes it; when it does not work, say so."""
    from sandbox.lifecycle.suspend import suspend_locked

    if seen.profile is None or seen.profile.settings.machine.on_close != SUSPEND or seen.pending:
        return False
    try:
        suspend_locked(house, seen.profile, seen)
    except StoppedError:
        raise
    except MailboxError as error:
        house.progress.warn(f"{error.brief} It is shut down.")
        return False
    return True


def close_locked(house: House, seen: Observation) -> Closing:
    """Close under a lock that the caller holds."""
    work = ClosingSteps(house, seen.name, tidy=seen.remains or seen.suspending)
    run(plan_close(seen), work.effects(), house.journal(seen.name), house.progress)
    after = observe(house, seen.name)
    if not is_closed(house, after):
        raise MailboxError(
            f"{seen.name} is not fully closed: the machine is {after.machine}.",
            resolution="Run `mailbox close` again; `mailbox doctor` checks libvirt.",
            code="not-closed",
            exit_code=Exit.MACHINE,
        )
    return Closing(work.clean and not work.warnings, tuple(work.warnings))


def is_closed(house: House, seen: Observation) -> bool:
    """Whether nothing of an open machine is left and no open or close is unfinished."""
    return (
        seen.machine is MachineState.CLOSED
        and not seen.warden
        and (seen.pending is None or seen.pending.verb not in ("open", "close", "suspend"))
        and not house.paths.machine(seen.name).exists()
    )


class ClosingSteps:
    """The effects of one close."""

    def __init__(self, house: House, name: str, *, tidy: bool = False) -> None:
        self.clean = False
        self.warnings: list[dict[str, str]] = []
        self._tidy = tidy
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
            asked = warden.shutdown(SHUTDOWN_DEADLINE_S, self._on_event)
        except MailboxError as error:
            self._house.progress.warn(f"The machine did not close by itself: {error.brief}")
            return {"clean": False, "code": error.code}
        domain = self._house.domain(self._name)
        self.clean = asked and self._house.machines.wait_gone(domain, _POWEROFF_DEADLINE_S)
        return {"clean": self.clean, "warnings": [each["code"] for each in self.warnings]}

    def _on_event(self, event: Any) -> None:
        if event.kind in ("warning", "error"):
            self.warnings.append({"code": event.code, "message": event.message})
            self._house.progress.warn(f"The machine says: {event.message}")

    def _end_warden(self) -> None:
        control = self._house.paths.control_socket(self._name)
        try:
            self._house.wardens.find(control).stop()
        except MailboxError:
            self._house.wardens.kill(control)

    def _end_machine(self) -> None:
        self._house.machines.destroy(self._house.domain(self._name))

    def _clear(self) -> None:
        paths = self._house.paths
        self._house.custodians.stop(paths.custody_socket(self._name), paths.gnupg(self._name))
        self._house.storage.end(self._house.paths.volume_socket(self._name))
        self._house.storage.end(self._house.paths.saved_file(self._name))
        if self._tidy:
            kept.tidy(self._house, self._name)
        folder = self._house.paths.machine(self._name)
        files.remove_pipes(folder)
        shutil.rmtree(folder, ignore_errors=True)
