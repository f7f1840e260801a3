"""`shred`: keys first, then the data. Only forward: killed anywhere, it ends in shredded."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.retain import running, too_early
from sandbox.lifecycle.settle import settle, unfinished_name
from sandbox.lifecycle.shredding import Order, Shredding
from sandbox.model.errors import MailboxError
from sandbox.model.inventory import open_rows
from sandbox.state.retentions import today

STEPS = (
    Step("close", "Closing the machine", "its memory holds the key"),
    Step("tombstone", "Leaving the tombstone", "from here on there is no way back"),
    Step("keyring", "Destroying the keys in the keyring", "without them the volume is noise"),
    Step("header", "Overwriting the keyslots", "no key or passphrase opens the volume again"),
    Step("keys", "Destroying the OpenPGP key ring", "its passphrase is gone with the keyring's"),
    Step("volume", "Removing the volume", "ciphertext without a key"),
    Step("leftovers", "Clearing what libvirt and the viewer noted", "it names the mailbox"),
    Step("look", "Looking for what is left", "only what was looked for is known to be gone"),
    Step("profile", "Removing the profile", "it names the customer and the servers"),
    Step("certificate", "Writing the certificate", "it says what was done, seen and not seen"),
)


@dataclass(frozen=True)
class Shredded:
    """What one run of a shredding did: seconds of each step, what it found left, and the
    copies that are neither destroyed nor stated to be.
    """

    seconds: dict[str, float]
    left: tuple[Mapping[str, Any], ...]
    open: list[str]


def plan_shred(name: str, profile_id: uuid.UUID, order: Order | None = None) -> Plan:
    """The steps of a shredding, keys before data."""
    facts = {"profile_id": str(profile_id), **(order or Order()).facts()}
    return Plan("shred", name, STEPS, facts)


def shred(house: House, name: str, order: Order | None = None, day: date | None = None) -> Result:
    """Destroy the profile's keys and data; a name already shredded is an error that says when.

    Before the day until which it is kept it is refused, or the order's `override` goes on record.
    """
    known = house.records.find(name) or unfinished_name(house, name) or name
    with house.locked(known, "shred"):
        pending = house.journal(known).read().pending()
        if pending and pending.verb == "retain":
            settle(house, known)  # what was to be kept is kept
            pending = None
        identity = identity_of(house, known, pending and pending.facts)
        order = order or Order()
        if pending and pending.verb == "shred":
            order = Order.read(pending.facts or {})
        else:
            order = allowed(house, known, identity, order, day or today())
        done = shred_locked(house, known, identity, order)
    summary = f"{known} is shredded."
    if done.left:
        summary += f" It is still named in {len(done.left)} places; see `mailbox log {known}`."
    facts = {
        "profile_id": str(identity),
        "left": list(done.left),
        "open": done.open,
        "certificate": str(house.paths.certificate(known, str(identity))),
        "seconds": done.seconds,
    }
    return Result("shred", known, summary, facts)


def allowed(house: House, name: str, profile_id: uuid.UUID, order: Order, day: date) -> Order:
    """The order as it goes on record: an override only where there was something to override."""
    retention = running(house, name, str(profile_id), day)
    if retention and not order.override:
        raise too_early(name, retention)
    return order if retention else replace(order, override="")


def identity_of(house: House, name: str, pending: Any) -> uuid.UUID:
    """The profile's id, from its file or, when that is gone or broken, from the journal."""
    try:
        return house.records.load(name, shredded=True).id
    except MailboxError:
        begun = house.journal(name).read().last("onboard", "begin")
        for facts in (pending, begun and begun.facts if house.records.find(name) else None):
            if facts and "profile_id" in facts:
                return uuid.UUID(str(facts["profile_id"]))
        raise


def shred_locked(house: House, name: str, profile_id: uuid.UUID, order: Order) -> Shredded:
    """Run all steps under a lock that the caller holds; each is idempotent."""
    work = Shredding(house, name, profile_id, order)
    plan = plan_shred(name, profile_id, order)
    timings = run(plan, work.effects(), house.journal(name), house.progress)
    for each in work.left:
        house.progress.warn(f"The {each['kind']} is still in {each['path']}.")
    seconds = {timing.step: round(timing.seconds, 3) for timing in timings}
    stone = house.records.tombstones.of(str(profile_id))
    rows = stone.case.get("copies", []) if stone else []
    return Shredded(seconds, tuple(work.left), open_rows(rows))
