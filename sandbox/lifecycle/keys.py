"""`keys list|remove`: a mailbox's own key and its correspondents', in ring and profile."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.held import is_held_by_user
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.settle import settle
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keycare import WITHOUT
from sandbox.model.keys import Key, problem_as
from sandbox.model.machine import MachineState
from sandbox.model.profile import Profile
from sandbox.model.smime import ends_at

WARN_S = 30 * 24 * 3600
SMIME = "smime"
_WHOSE = {
    "own": "The mailbox's own key",
    "retired": "A key that it had",
    SMIME: "The mailbox's S/MIME certificate",
}


@dataclass(frozen=True)
class Listed:
    """A key of a mailbox: `problem` says why it cannot serve, `expires` is a UNIX time."""

    role: str
    fingerprint: str
    addresses: tuple[str, ...]
    user_ids: tuple[str, ...] = ()
    expires: int | None = None
    problem: str = ""

    def ends_soon(self, now: float) -> bool:
        """Whether it still serves, and expires within thirty days."""
        serves = self.role != "retired" and not self.problem
        return serves and self.expires is not None and self.expires < now + WARN_S


def list_keys(house: House, name: str) -> list[Listed]:
    """The mailbox's own key first, then those that it had, then its correspondents'."""
    profile = house.records.load(name)
    own = profile.keys.fingerprint
    listed: list[tuple[str, str, tuple[str, ...]]] = [("own", own, ())] if own else []
    listed += [("retired", each, ()) for each in profile.keys.retired]
    listed += [
        ("correspondent", each.fingerprint, each.addresses) for each in profile.keys.correspondents
    ]
    ring = house.profile_keyring(profile.name)
    known = {key.fingerprint: key for key in ring.look([each[1] for each in listed])}
    if own in known and is_held_by_user(profile.settings):
        secret = house.user_keyring.has_secret(str(own))
        known[str(own)] = replace(known[str(own)], secret=secret)
    rows = [_listed(*each, known.get(each[1])) for each in listed]
    return [*rows, *_certificate(house, profile)]


def _certificate(house: House, profile: Profile) -> list[Listed]:
    """The S/MIME certificate, if there is one."""
    smime = profile.smime
    if smime is None:
        return []
    there = house.paths.certificate_file(profile.name, smime.fingerprint).exists()
    ends = ends_at(smime)
    problem = "" if there else "is not on this computer"
    if there and ends <= time.time():
        problem = f"expired on {smime.expires}"
    return [Listed(SMIME, smime.fingerprint, (profile.account.address,), (), ends, problem)]


def _listed(role: str, fingerprint: str, addresses: tuple[str, ...], key: Key | None) -> Listed:
    if key is None:
        return Listed(role, fingerprint, addresses, problem="is not in the mailbox's key ring")
    problem = problem_as(key, role) or ""
    shown = addresses or key.addresses
    return Listed(role, fingerprint, shown, key.user_ids, key.expires, problem)


def warn_of_keys(house: House, listed: list[Listed]) -> None:
    """Warn of keys that do not serve, or not for long."""
    now = time.time()
    for each in listed:
        whose = _WHOSE.get(each.role) or ", ".join(each.addresses)
        if each.problem:
            house.progress.warn(f"{whose}: {each.fingerprint} {each.problem}.")
        elif each.ends_soon(now):
            day = time.strftime("%Y-%m-%d", time.gmtime(each.expires))
            house.progress.warn(f"{whose}: {each.fingerprint} expires on {day}.")


def warn_of_ends(house: House, name: str) -> None:
    """Warn of the keys that serve, but not for long; other troubles are told elsewhere."""
    now = time.time()
    with suppress(MailboxError):
        keys = house.records.load(name).keys
        if keys.retired and not keys.fingerprint:
            house.progress.warn(WITHOUT)
        warn_of_keys(house, [each for each in list_keys(house, name) if each.ends_soon(now)])


WRITE = Step("profile", "Writing the profile", "it names whose keys are accepted")


def plan_remove(profile: Profile, fingerprint: str) -> Plan:
    """The steps of `keys remove`; raises `key-not-found` when nobody has that key."""
    if fingerprint not in {each.fingerprint for each in profile.keys.correspondents}:
        raise MailboxError(
            f"{profile.name} has no correspondent with the key {fingerprint}.",
            resolution=f"`mailbox keys list {profile.name}` shows them.",
            code="key-not-found",
            exit_code=Exit.KEYS,
        )
    return Plan("keys remove", profile.name, (WRITE,))


def remove(house: House, name: str, fingerprint: str) -> Result:
    """Accept a correspondent's key no longer; the key itself may stay in the ring."""
    profile = house.records.load(name)
    with house.locked(profile.name, "keys remove"):
        settle(house, profile.name)
        profile = house.records.load(name)
        plan = plan_remove(profile, fingerprint)
        effects: dict[str, Callable[[], Any]] = {
            "profile": lambda: _write_without(house, profile, fingerprint)
        }
        run(plan, effects, house.journal(profile.name), house.progress, undo=lambda: None)
    summary = f"The key {fingerprint} is accepted no longer."
    return changed(house, "keys remove", profile.name, summary, {"fingerprint": fingerprint})


def _write_without(house: House, profile: Profile, fingerprint: str) -> None:
    kept = tuple(each for each in profile.keys.correspondents if each.fingerprint != fingerprint)
    house.records.save(replace(profile, keys=replace(profile.keys, correspondents=kept)))


def changed(house: House, verb: str, name: str, summary: str, facts: dict[str, Any]) -> Result:
    """The result of a change of keys, and when it counts."""
    is_open = observe(house, name).machine is not MachineState.CLOSED
    when = "once it was closed and opened again" if is_open else "at the next open"
    return Result(verb, name, f"{summary} It counts {when}.", {**facts, "open": is_open})
