"""`open`: from a profile to a machine whose mail client is usable; undone as a whole."""

from __future__ import annotations

from dataclasses import asdict

from sandbox.lifecycle import given, keycheck
from sandbox.lifecycle.close import close_locked
from sandbox.lifecycle.desired import held_on_host
from sandbox.lifecycle.engine import Plan, Step, StoppedError, run, seconds_of
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.keys import warn_of_ends
from sandbox.lifecycle.machine import (
    CUSTODY,
    carries_all,
    is_usable,
)
from sandbox.lifecycle.observe import Observation, observe
from sandbox.lifecycle.opening import Opening, OpenOutcome
from sandbox.lifecycle.resume import Resuming, plan_resume, spec_misfit
from sandbox.lifecycle.retain import refuse_kept
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.lifecycle.warming import catch_up_later
from sandbox.model.errors import MailboxError
from sandbox.model.machine import Image, MachineState
from sandbox.model.profile import Profile

_VERIFY = Step("verify", "Verifying the image", "it must be the one that was built")
_CHECK = Step("check", "Looking at the volume", "no machine is started for a damaged one")
_DISCARD = Step("discard", "Discarding the suspended machine", "its memory fits no more")
_START = Step("start", "Starting the machine", "no machine of this mailbox runs")
_WARDEN = Step("warden", "Starting the warden", "it carries the channel and what it allows")
_GATHER = Step("gather", "Taking the secrets from the keyring", "the machine needs them once")
_CHANNEL = Step("channel", "Waiting for the machine", "it answers on the channel when it is up")
_PLUG = Step("plug", "Plugging the volume in", "the mail is there and nowhere else")
_PROVISION = Step("provision", "Setting up the mail client", "account, keys and policies as wished")


def plan_open(seen: Observation, image: str, *, custody: bool = False, prove: bool = False) -> Plan:
    """The steps from what is seen to a usable client; a running machine keeps what it has."""
    steps: tuple[Step, ...]
    held = (CUSTODY,) if custody else ()
    if seen.machine is MachineState.CLOSED:
        # Before any other machine gets the volume.
        discard = (_DISCARD,) if seen.remains else ()
        begin = (_VERIFY, _CHECK, *discard, _START, _WARDEN)
        steps = (*begin, _GATHER, *held, _CHANNEL, _PLUG, _PROVISION)
    else:
        warden = () if seen.warden else (_WARDEN,)
        plug = () if seen.plugged else (_PLUG,)
        steps = (*warden, _GATHER, *held, _CHANNEL, *plug, _PROVISION)
    proving = (keycheck.PROVE,) if prove else ()
    return Plan("open", seen.name, (*steps, *proving), {"image": image})


def open_mailbox(house: House, name: str, *, headless: bool) -> Result:
    """Open the mailbox, or show it again when it is open already."""
    house.config()  # a mistake in it is said before anything is started
    known = settle_name(house, name)
    with house.locked(known, "open"):
        settle(house, known)
        profile = house.records.load(known)
        refuse_kept(house, known, str(profile.id))
        seen = observe(house, known)
        if is_usable(house, seen) and not given.has_old_secret(house, known):
            house.host.guard_sleep()
            outdated = given.is_outdated(house, profile)
            if outdated:
                house.progress.warn(
                    f"{known} was changed since it was opened; what is new counts once it was "
                    "closed and opened again."
                )
            shown = not headless and _show(house, profile)
            facts = {"already": True, "shown": shown, "outdated": outdated}
            return Result("open", known, f"{known} is open.", facts)
        outcome = _open(house, profile, seen)
        house.host.guard_sleep()
    if outcome.cold_reason:
        machine = profile.settings.machine
        catch_up_later(house, profile.settings.client, machine.shape)
    warn_of_ends(house, known)
    shown = not headless and _show(house, profile)
    facts = {"already": False, "shown": shown, **asdict(outcome)}
    return Result("open", known, f"{known} is open and the mail client is ready.", facts)


def _open(house: House, profile: Profile, seen: Observation) -> OpenOutcome:
    seen = _cleared(house, seen)
    closed = seen.machine is MachineState.CLOSED
    image = house.images.newest(profile.settings.client) if closed else None
    if image is not None and seen.suspended:
        outcome = _resumed(house, profile, image)
        if outcome is not None:
            return outcome
        seen = observe(house, profile.name)
    work = Opening(house, profile, seen, image)
    timings = run(
        planned(house, profile, seen, image.id if image else seen.image),
        work.effects(),
        house.journal(profile.name),
        house.progress,
        undo=lambda: _undo(house, profile.name),
    )
    work.outcome.seconds = seconds_of(timings)
    return work.outcome


def planned(house: House, profile: Profile, seen: Observation, image: str) -> Plan:
    """The plan for a mailbox as it is; after an update of the image, the keys are tried."""
    due = keycheck.is_due(house.journal(profile.name).read(), image, profile)
    return plan_open(seen, image, custody=held_on_host(profile), prove=due)


def _cleared(house: House, seen: Observation) -> Observation:
    """What is in the way of an open is brought to order; returns what is seen then."""
    # A warden outlives a machine that was powered off from inside; it would be in the way.
    orphaned = seen.machine is MachineState.CLOSED and seen.warden
    # A machine that came back and whose memory is still kept must never go on.
    doubled = seen.machine is not MachineState.CLOSED and seen.remains
    # What served its volume was killed, which is a power cut for its file system.
    unserved = seen.plugged and not seen.served
    unfit = unserved or _cannot_follow(house, seen)
    if orphaned or doubled or unfit or seen.machine is MachineState.UNKNOWN:
        close_locked(house, seen)
    elif seen.machine is MachineState.PAUSED:
        # QEMU pauses a machine whose writes find no space, and loses none of them.
        house.progress.warn("The machine was paused, as it is when the disk is full; it goes on.")
        house.machines.resume(house.domain(seen.name))
    else:
        return seen
    return observe(house, seen.name)


def _cannot_follow(house: House, seen: Observation) -> bool:
    """Whether a machine that is to be told of a secret has the warden of an older profile."""
    profile, running = seen.profile, seen.machine is MachineState.OPEN and seen.warden
    if not running or profile is None or not given.has_old_secret(house, seen.name):
        return False
    return not carries_all(house, profile)


def _resumed(house: House, profile: Profile, image: Image) -> OpenOutcome | None:
    """Let the suspended machine go on; None, with the reason said, when it cannot."""
    reason = spec_misfit(house, profile, image)
    if reason:
        house.progress.warn(f"The suspended machine is not used, since {reason}; starting afresh.")
        return None
    work = Resuming(house, profile, image)
    try:
        timings = run(
            plan_resume(profile.name, image.id, custody=held_on_host(profile)),
            work.effects(),
            house.journal(profile.name),
            house.progress,
            undo=lambda: _undo(house, profile.name),
        )
    except StoppedError:
        raise
    except MailboxError as error:
        house.progress.warn(f"{error.brief} Starting afresh; nothing on the volume is lost.")
        return None
    return OpenOutcome(warnings=work.warnings, seconds=seconds_of(timings), resumed=True)


def _undo(house: House, name: str) -> None:
    seen = observe(house, name)
    close_locked(house, seen)


def _show(house: House, profile: Profile) -> bool:
    return house.host.show(house.domain(profile.name), profile.name)
