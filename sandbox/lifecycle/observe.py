"""What is, asked of those who know: libvirt, the disk, the warden, the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sandbox.lifecycle import kept
from sandbox.lifecycle.house import House
from sandbox.model.errors import MailboxError
from sandbox.model.machine import MachineState
from sandbox.model.profile import Profile
from sandbox.state.journal import Entry, History
from sandbox.state.retentions import Retention

if TYPE_CHECKING:
    from sandbox import ports

T = TypeVar("T")


@dataclass(frozen=True)
class Observation:
    """One profile as it is now. `profile` is None when its file is missing or broken.

    `plugged`: the machine has its volume; `served`: a storage daemon is there for it;
    `suspended`: a suspended machine is kept as a whole; `remains`: anything of one is there;
    `suspending`: a suspend was killed.
    """

    name: str
    profile: Profile | None
    error: str
    machine: MachineState
    volume: ports.VolumeFacts | None
    blank: bool
    warden: bool
    plugged: bool
    served: bool
    suspended: bool
    remains: bool
    suspending: bool
    pending: Entry | None
    image: str
    last_opened: str
    buried: bool = False
    retention: Retention | None = None

    @property
    def state(self) -> str:
        """One word for lists."""
        if self.error:
            return "broken"
        if self.pending and self.machine is MachineState.CLOSED:
            return f"unfinished {self.pending.verb}"
        if self.buried:
            return "shredded"
        if self.retention and self.machine is MachineState.CLOSED:
            return "retained"
        suspended = self.machine is MachineState.CLOSED and self.suspended
        return "suspended" if suspended else str(self.machine)


def observe(house: House, name: str) -> Observation:
    """Observe one profile closely."""
    domain = house.domain(name)
    machine = house.machines.state(domain)
    running = machine is not MachineState.CLOSED
    return _observation(
        house,
        name,
        machine,
        warden=house.wardens.answers(house.paths.control_socket(name)),
        plugged=running and house.machines.has_volume(domain),
        served=house.storage.serves(house.paths.volume_socket(name)),
    )


def look_at(house: House, name: str) -> Observation:
    """As `observe`, for reports: what libvirt cannot tell is unknown instead of an error."""
    try:
        return observe(house, name)
    except MailboxError as error:
        house.progress.warn(f"{error.brief} {error.resolution}".strip())
        warden = house.wardens.answers(house.paths.control_socket(name))
        return _observation(house, name, MachineState.UNKNOWN, warden=warden)


def observe_all(house: House) -> list[Observation]:
    """Observe every profile with one request to libvirt; nothing broken hides the others."""
    try:
        states = house.machines.states()
        unknown = MachineState.CLOSED
    except MailboxError as error:
        house.progress.warn(f"{error.brief} {error.resolution}".strip())
        states, unknown = {}, MachineState.UNKNOWN
    return [
        _observation(house, name, states.get(house.domain(name), unknown))
        for name in house.records.names()
    ]


def _observation(
    house: House,
    name: str,
    machine: MachineState,
    *,
    warden: bool = False,
    plugged: bool = False,
    served: bool = False,
) -> Observation:
    errors: list[str] = []
    profile = _or_error(errors, lambda: house.records.load(name, shredded=True))
    history = _or_error(errors, house.journal(name).recent) or History(())
    volume = _or_error(errors, lambda: house.volumes.look(house.paths.volume(name)))
    begun, opened = history.last("open", "begin"), history.last("open", outcome="done")
    retention = _retention(house, name, profile, errors)
    return Observation(
        name=name,
        profile=profile,
        error="\n".join(errors),
        machine=machine,
        volume=volume,
        blank=house.paths.blank(name).exists(),
        warden=warden,
        plugged=plugged,
        served=served,
        suspended=bool(_or_error(errors, lambda: kept.is_kept(house, name))),
        remains=bool(_or_error(errors, lambda: kept.is_anything_kept(house, name))),
        suspending=history.pending("suspend") is not None,
        pending=history.pending(),
        image=begun.fact("image") if begun else "",
        last_opened=opened.time if opened else "",
        retention=retention,
        buried=bool(profile and house.records.tombstones.of(str(profile.id))),
    )


def _retention(
    house: House, name: str, profile: Profile | None, errors: list[str]
) -> Retention | None:
    if profile is None:
        return None
    return _or_error(errors, lambda: house.records.retentions.of(name, str(profile.id)))


def _or_error(errors: list[str], look: Callable[[], T]) -> T | None:
    try:
        return look()
    except MailboxError as problem:
        errors += filter(None, (problem.brief, problem.details))
    except OSError as problem:  # one that cannot even be looked at hides no other
        errors.append(str(problem))
    return None
