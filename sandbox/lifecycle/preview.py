"""What a verb would do now: its plan from what is seen, without doing or noting anything."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date

from sandbox.lifecycle import given, images
from sandbox.lifecycle.close import is_closed, plan_close
from sandbox.lifecycle.codes import look
from sandbox.lifecycle.correspondents import plan_add
from sandbox.lifecycle.desired import held_on_host
from sandbox.lifecycle.engine import Plan, Step
from sandbox.lifecycle.header import plan_backup
from sandbox.lifecycle.house import House
from sandbox.lifecycle.keys import plan_remove
from sandbox.lifecycle.machine import is_usable
from sandbox.lifecycle.observe import Observation, observe, observe_all
from sandbox.lifecycle.onboard import Wish, plan_onboard
from sandbox.lifecycle.open import planned
from sandbox.lifecycle.orphans import orphans
from sandbox.lifecycle.password import look as look_at_passwords
from sandbox.lifecycle.password import plan_password
from sandbox.lifecycle.recover import Means, look_ahead
from sandbox.lifecycle.resume import plan_resume
from sandbox.lifecycle.retain import plan_retain, refuse_kept
from sandbox.lifecycle.settle import find_name, unfinished_name
from sandbox.lifecycle.shred import allowed, identity_of, plan_shred
from sandbox.lifecycle.shredding import Order
from sandbox.lifecycle.smime import NewCertificate, plan_smime
from sandbox.lifecycle.smime import look as look_into_certificate
from sandbox.lifecycle.suspend import plan_suspend, refuse
from sandbox.lifecycle.switch import to_leave
from sandbox.lifecycle.warm import killed
from sandbox.model.machine import MachineState
from sandbox.model.offers import Offer, without_own
from sandbox.model.profile import SUSPEND, Profile
from sandbox.state.retentions import Retention, today

_UNDONE = ("onboard", "open")
_ORPHAN = Step("orphan", "Closing what runs in its name", "there is no such mailbox any more")
_WARMING = Step("warm", "Ending the machine of a killed `mailbox image warm`", "nobody needs it")
_IMAGES = Step("images", "Removing what a killed command left of images", "it takes room")


def onboarding(house: House, wish: Wish) -> Plan:
    """What `onboard` would do; neither servers nor login are tried."""
    known = unfinished_name(house, wish.name) or wish.name
    return _after_settling(house, known, plan_onboard(wish, uuid.uuid4()))


def opening(house: House, name: str) -> Plan:
    """What `open` would do; a mailbox that is usable is only shown."""
    known = find_name(house, name)
    profile = house.records.load(known)
    refuse_kept(house, known, str(profile.id))
    seen = observe(house, known)
    if seen.pending:
        plan = planned(house, profile, _closed(seen), _image(house, seen))
        return _after_settling(house, known, plan)
    if is_usable(house, seen) and not given.has_old_secret(house, known):
        return Plan("open", known, (Step("show", "Showing the window", "it is open already"),))
    if seen.machine is MachineState.CLOSED and seen.suspended:
        # Where it turns out not to fit any more, it is discarded and started afresh.
        return plan_resume(known, _image(house, seen), custody=held_on_host(profile))
    image = seen.image if seen.machine is MachineState.OPEN else _image(house, seen)
    return planned(house, profile, seen, image)


def closing(house: House, name: str, *, shutdown: bool = False) -> Plan:
    """What `close` would do; nothing when the mailbox is closed."""
    known = find_name(house, name)
    seen = observe(house, known)
    profile = seen.profile
    put_away = profile and profile.settings.machine.on_close == SUSPEND and not shutdown
    if profile and put_away and not seen.pending and is_usable(house, seen):
        return plan_suspend(profile)
    return Plan("close", known, ()) if is_closed(house, seen) else plan_close(seen)


def suspending(house: House, name: str) -> Plan:
    """What `suspend` would do; refused as it would be."""
    known = find_name(house, name)
    profile, seen = house.records.load(known), observe(house, known)
    if seen.machine is MachineState.CLOSED and seen.suspended:
        return Plan("suspend", known, ())
    refuse(house, seen)
    return plan_suspend(profile)


def switching(house: House, name: str) -> list[Plan]:
    """What `switch` would do: the others' plans, then the open."""
    known = find_name(house, name)
    others = to_leave(observe_all(house), known)
    return [*(closing(house, other) for other in others), opening(house, known)]


def renewing_code(house: House, name: str, *, replace: bool) -> Plan:
    """What `recovery-code` would do; refused as it would be."""
    known = find_name(house, name)
    _, plan = look(house, house.records.load(known), replace=replace)
    return _after_settling(house, known, plan)


def backing_up(house: House, name: str, *, remove: bool) -> Plan:
    """What `header-backup` would do; refused as it would be."""
    known = find_name(house, name)
    plan = plan_backup(house, house.records.load(known), remove=remove)
    return _after_settling(house, known, plan)


def recovering(house: House, name: str, means: Means) -> Plan:
    """What `recover` would do, which the code tells; refused as it would be."""
    known = find_name(house, name)
    return _after_settling(house, known, look_ahead(house, known, means))


def adding_keys(house: House, name: str, offers: Sequence[Offer]) -> Plan:
    """What `keys add` would do with keys that were found; refused as it would be."""
    profile = house.records.load(find_name(house, name))
    without_own(offers, profile.keys.fingerprint)
    return _after_settling(house, profile.name, plan_add(profile.name, len(offers)))


def removing_key(house: House, name: str, fingerprint: str) -> Plan:
    """What `keys remove` would do; refused as it would be."""
    profile = house.records.load(find_name(house, name))
    return _after_settling(house, profile.name, plan_remove(profile, fingerprint))


def changing_certificate(house: House, name: str, new: NewCertificate | None) -> Plan:
    """What `keys smime` would do with a file, or without one; refused as it would be."""
    profile = house.records.load(find_name(house, name))
    if new is not None:
        look_into_certificate(house, profile, new)
    return _after_settling(house, profile.name, plan_smime(profile, remove=new is None))


def changing_own_key(house: House, name: str, plan: Callable[[Profile], Plan]) -> Plan:
    """What `keys generate|rotate|extend|revoke|forget` would do; refused as it would be."""
    profile = house.records.load(find_name(house, name))
    return _after_settling(house, profile.name, plan(profile))


def changing_password(house: House, name: str, words: Mapping[str, str]) -> Plan:
    """What `password` would do; no server is tried."""
    profile = house.records.load(find_name(house, name))
    needs, _ = look_at_passwords(house, profile, words)
    return _after_settling(house, profile.name, plan_password(profile.name, needs))


def shredding(house: House, name: str, order: Order) -> Plan:
    """What `shred` would do; refused as it would be."""
    known = find_name(house, name)
    pending = house.journal(known).read().pending()
    identity = identity_of(house, known, pending and pending.facts)
    order = allowed(house, known, identity, order, today())
    return plan_shred(known, identity, order)


def retaining(house: House, name: str, until: date, because: str) -> Plan:
    """What `retain` would do."""
    known = find_name(house, name)
    retention = Retention(str(house.records.load(known).id), until, because, "")
    return _after_settling(house, known, plan_retain(known, retention))


def repairing(house: House, name: str | None) -> list[Plan]:
    """What `repair` would do, for each mailbox with something unfinished."""
    journals = sorted(path.stem for path in house.paths.journals.glob("*.jsonl"))
    names = [find_name(house, name)] if name else journals
    found = ((each, _settling(house, each)) for each in names)
    plans = [Plan("repair", each, (step,)) for each, step in found if step]
    if name:
        return plans
    settled = {plan.name for plan in plans}
    left = [each for each in orphans(house) if each not in settled]
    plans += [Plan("repair", each, (_ORPHAN,)) for each in left]
    plans += [Plan("repair", each, (_WARMING,)) for each in killed(house)]
    return plans + ([Plan("repair", "images", (_IMAGES,))] if images.killed(house) else [])


def _after_settling(house: House, name: str, plan: Plan) -> Plan:
    step = _settling(house, name)
    return replace(plan, steps=(step, *plan.steps)) if step else plan


def _settling(house: House, name: str) -> Step | None:
    pending = house.journal(name).read().pending()
    if pending is None:
        return None
    done = "Undoing" if pending.verb in _UNDONE else "Finishing"
    reason = f"it was begun on {pending.time} and never ended"
    return Step("settle", f"{done} the earlier `mailbox {pending.verb} {name}`", reason)


def _closed(seen: Observation) -> Observation:
    return replace(seen, machine=MachineState.CLOSED, warden=False, plugged=False)


def _image(house: House, seen: Observation) -> str:
    return house.images.newest(seen.profile.settings.client).id if seen.profile else ""
