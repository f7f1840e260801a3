"""`suspend`: the machine's memory to an encrypted volume of its own; `open` goes on from there."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from sandbox.lifecycle import given, kept
from sandbox.lifecycle.close import ClosingSteps, close_locked
from sandbox.lifecycle.engine import Plan, Step, run, seconds_of
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.machine import (
    CHANNEL_DEADLINE_S,
    is_usable,
    machine_spec,
    start_warden,
)
from sandbox.lifecycle.observe import Observation, observe
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import MachineState
from sandbox.model.profile import Profile
from sandbox.model.secrets import STATE_KEY
from sandbox.model.suspended import Note

PREPARE_DEADLINE_S = 90.0
WAKE_DEADLINE_S = 240.0
# Only a courtesy to the next open, which else begins with a hello that is lost.
HANG_UP_S = 3.0
_POLL_S = 0.02
_HUNG_UP = b"mailbox: channel: sshd ended"

_ROOM = Step("room", "Making an encrypted place for the memory", "it never rests in plain")
_PREPARE = Step("prepare", "Preparing the machine", "its file system rests, its caches are empty")
_WARDEN = Step("warden", "Ending the warden", "nothing reaches the machine any more")
_SAVE = Step("save", "Putting the memory away", "the next open goes on from here")
_SEAL = Step("seal", "Noting what it fits", "it goes on only where nothing has changed")
_TRACES = Step("traces", "Clearing the runtime folder", "no secret, no socket stays")


def plan_suspend(profile: Profile) -> Plan:
    """The steps from a usable mailbox to a suspended one."""
    steps = (_ROOM, _PREPARE, _WARDEN, _SAVE, _SEAL, _TRACES)
    return Plan("suspend", profile.name, steps, {"profile_id": str(profile.id)})


def suspend(house: House, name: str) -> Result:
    """Suspend the mailbox; one that is suspended stays so.

    Raises:
        MailboxError: `not-open`, `suspend-impossible`; the mailbox stays as it was.
    """
    from sandbox.lifecycle.settle import settle, settle_name

    known = settle_name(house, name)
    with house.locked(known, "suspend"):
        settle(house, known)
        profile = house.records.load(known)
        seen = observe(house, known)
        if seen.machine is MachineState.CLOSED and seen.suspended:
            return Result("suspend", known, f"{known} is suspended.", {"already": True})
        facts = suspend_locked(house, profile, seen)
    return Result("suspend", known, f"{known} is suspended.", {"already": False, **facts})


def suspend_locked(house: House, profile: Profile, seen: Observation) -> dict[str, Any]:
    """Suspend under a lock that the caller holds; what fails leaves the mailbox open."""
    refuse(house, seen)
    work = _Suspending(house, profile, seen)
    timings = run(
        plan_suspend(profile),
        work.effects(),
        house.journal(profile.name),
        house.progress,
        undo=work.undo,
    )
    saved = house.volumes.look(house.paths.saved(profile.name))
    return {
        "seconds": seconds_of(timings),
        "bytes": saved.allocated if saved else 0,
    }


def refuse(house: House, seen: Observation) -> None:
    """Refuse what cannot be suspended; raises `not-open` or `suspend-impossible`."""
    if not is_usable(house, seen):
        raise MailboxError(
            f"{seen.name} is not open and usable, so it cannot be suspended.",
            resolution=f"`mailbox open {seen.name}` first, or `mailbox close {seen.name}`.",
            code="not-open",
            exit_code=Exit.MACHINE,
        )
    problem = house.storage.suspend_problem()
    if problem:
        raise MailboxError(
            f"{seen.name} cannot be suspended on this computer: {problem}.",
            resolution="`mailbox close` shuts it down; `mailbox doctor` says more.",
            code="suspend-impossible",
            exit_code=Exit.HOST,
        )


class _Suspending:
    """The effects of one suspending."""

    def __init__(self, house: House, profile: Profile, seen: Observation) -> None:
        self._house = house
        self._profile = profile
        self._name = profile.name
        self._image = seen.image
        self._key = b""
        self._closing = ClosingSteps(house, profile.name).effects()
        self._window = house.paths.saved_file(profile.name)

    def effects(self) -> dict[str, Any]:
        closing = self._closing
        return {
            "room": self._make_room,
            "prepare": self._prepare,
            "warden": self._hang_up,
            "save": self._save,
            "seal": self._seal,
            "traces": closing["traces"],
        }

    def _make_room(self) -> None:
        house, saved = self._house, self._house.paths.saved(self._name)
        kept.discard(house, self._name, self._profile.id)
        self._key = house.vault.new_key()
        house.vault.put(self._profile.id, STATE_KEY, self._key.decode())
        size = kept.capacity(self._profile.settings.machine.memory)
        house.volumes.create_for_memory(saved, size, self._key)
        house.storage.serve_file(saved, self._key, self._window)

    def _prepare(self) -> None:
        warden = self._house.wardens.find(self._house.paths.control_socket(self._name))
        result = warden.tell("suspend-prepare", PREPARE_DEADLINE_S)
        if not result.ok:
            raise MailboxError(
                "The machine could not be prepared for being suspended.",
                details=result.error.message if result.error else "",
                resolution="`mailbox close` shuts it down.",
                code="not-prepared",
                exit_code=Exit.MACHINE,
            )

    def _hang_up(self) -> None:
        """End the channel, and let the guest see it; else it takes the next hello for SSH."""
        console = self._house.paths.console_log(self._name)
        begin = _size(console)
        self._closing["warden"]()
        end = time.monotonic() + HANG_UP_S
        while time.monotonic() < end and not _hung_up(console, begin):
            time.sleep(_POLL_S)

    def _save(self) -> None:
        self._house.machines.save(self._house.domain(self._name), self._window)

    def _seal(self) -> dict[str, Any]:
        house, paths = self._house, self._house.paths
        house.storage.end(self._window)
        house.storage.end(paths.volume_socket(self._name))
        image = house.images.newest(self._profile.settings.client)
        spec = machine_spec(house, self._profile, image, house.host.hardware())
        had = given.noted(house, self._name)
        note = Note(
            profile_id=str(self._profile.id),
            time=time.time(),
            saved=house.storage.digest(paths.saved(self._name)),
            secrets=had.pop("secrets", ""),
            fits={**kept.fits(house, self._profile, spec, self._image), **had},
        )
        kept.keep(house, self._name, note)
        facts = house.volumes.look(paths.saved(self._name))
        return {"bytes": facts.allocated if facts else 0}

    def undo(self) -> None:
        """Without the memory the machine is what counts: it goes on, or is closed."""
        kept.discard(self._house, self._name, self._profile.id)
        with contextlib.suppress(MailboxError):  # then it is closed
            self._connect_again()
        seen = observe(self._house, self._name)
        if not is_usable(self._house, seen, pending_allowed=True):
            close_locked(self._house, seen)
            return
        warden = self._house.wardens.find(self._house.paths.control_socket(self._name))
        # Its file system thaws by itself when this does not reach it.
        with contextlib.suppress(MailboxError):
            warden.tell("resume", WAKE_DEADLINE_S)

    def _connect_again(self) -> None:
        seen = observe(self._house, self._name)
        if seen.machine is MachineState.OPEN and seen.plugged and not seen.warden:
            start_warden(self._house, self._profile, up=True)
            warden = self._house.wardens.find(self._house.paths.control_socket(self._name))
            warden.wait_ready(CHANNEL_DEADLINE_S)


def _size(console: Path) -> int:
    try:
        return console.stat().st_size
    except OSError:
        return 0


def _hung_up(console: Path, begin: int) -> bool:
    """Whether the guest's channel says so on its console; also where nobody can hear it."""
    try:
        with console.open("rb") as file:
            file.seek(begin)
            untrusted = file.read(4096)
    except OSError:
        return True
    return _HUNG_UP in untrusted
