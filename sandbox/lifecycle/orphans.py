"""Machines and runtime folders of ours whose mailbox is gone: nobody closes them any more."""

from __future__ import annotations

from sandbox.lifecycle.close import close_locked
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import observe
from sandbox.model.errors import MailboxError
from sandbox.model.machine import profile_of_domain
from sandbox.model.names import name_problem


def orphans(house: House) -> list[str]:
    """What those are called that have a machine or a runtime folder and no profile.

    The folder of a very long name has another one (`Paths.machine`); it is told as that.
    When libvirt does not answer, that is said, and none are known.
    """
    try:
        states = house.machines.states()
    except MailboxError as error:
        house.progress.warn(f"{error.brief} {error.resolution}".strip())
        return []
    known = house.records.names()
    ours = {house.paths.machine(name) for name in known}
    domains = (profile_of_domain(each, house.paths.home_tag) for each in states)
    running = {name for name in domains if name and house.paths.machine(name) not in ours}
    ours |= {house.paths.machine(name) for name in running if not name_problem(name)}
    folders = (each for each in house.paths.runtime.glob("*") if each.is_dir())
    left = {each.name for each in folders if each not in ours}
    return sorted(name for name in running | left if not name_problem(name))


def end_orphans(house: House) -> list[str]:
    """Close the machines nobody can open or shred, with warden, secret, sockets and folder."""
    ended = []
    for name in orphans(house):
        with house.locked(name, "repair"):
            # An onboarding may have given the name back meanwhile.
            if house.records.find(name) is None:
                close_locked(house, observe(house, name))
                ended.append(name)
    return ended
