"""`keys check`: an open machine's mail client writes a mail with each key and reads it again.

It finds what an update of the client broke. The report is the machine's own: one that was taken
over can say what it likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sandbox.lifecycle.desired import held_on_host
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House
from sandbox.lifecycle.machine import is_usable
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.profile import Profile
from sandbox.state.journal import History

# In seconds; emulated machines need about twenty times what KVM needs.
CHECK_DEADLINE_S = 600.0
VERB = "keys check"
SILENT = "the machine said nothing of it"

PROVE = Step("prove", "Proving the keys", "the mail client must be able to use them")


@dataclass(frozen=True)
class Proven:
    """What the mail client said of a key; an empty `problem`: a mail was written and read."""

    role: str
    fingerprint: str
    addresses: tuple[str, ...]
    problem: str = ""


def plan_check(name: str, image: str) -> Plan:
    """The one step of `keys check`; nothing is changed by it."""
    return Plan("keys check", name, (PROVE,), {"image": image})


def check_keys(house: House, name: str) -> list[Proven]:
    """Let the open machine prove the mailbox's own key and its correspondents'."""
    known = settle_name(house, name)
    with house.locked(known, VERB):
        settle(house, known)
        profile, seen = house.records.load(known), observe(house, known)
        if not is_usable(house, seen):
            raise _not_open(known)
        proven: list[Proven] = []

        def prove_all() -> dict[str, Any]:
            proven.extend(prove(house, profile))
            return facts_of(proven)

        plan = plan_check(known, seen.image)
        run(plan, {"prove": prove_all}, house.journal(known), house.progress, undo=lambda: None)
    return proven


def prove(house: House, profile: Profile) -> list[Proven]:
    """Ask the machine, and put its answers beside the keys that it was asked about."""
    warden = house.wardens.find(house.paths.control_socket(profile.name))
    result = warden.tell("check", CHECK_DEADLINE_S, request(profile))
    if not result.ok:
        raise _failed(profile.name, result.error.message if result.error else "")
    return answers(profile, {event.name: event.message for event in result.checked})


def request(profile: Profile) -> dict[str, Any]:
    """Which keys the machine is to try."""
    return {
        "own": profile.keys.fingerprint,
        "custody": "host" if held_on_host(profile) else "guest",
        "correspondents": [
            {"fingerprint": each.fingerprint, "addresses": list(each.addresses)}
            for each in profile.keys.correspondents
        ],
    }


def answers(profile: Profile, said: dict[str, str]) -> list[Proven]:
    """The own key first; a key of which nothing was said is a problem."""
    own, address = profile.keys.fingerprint, profile.account.address
    proven = [Proven("own", own, (address,), said.get(own, SILENT))] if own else []
    return proven + [
        Proven(
            "correspondent",
            each.fingerprint,
            each.addresses,
            said.get(each.fingerprint, SILENT),
        )
        for each in profile.keys.correspondents
    ]


def facts_of(proven: Iterable[Proven]) -> dict[str, Any]:
    """What the journal keeps: how many serve, and which do not."""
    every = list(proven)
    return {"keys": len(every), "failed": [each.fingerprint for each in every if each.problem]}


def is_due(history: History, image: str, profile: Profile) -> bool:
    """Whether an open is the first one with this image, of a mailbox that had another."""
    custody = profile.settings.custody
    if held_on_host(profile) and (custody.decrypt.ask or custody.sign.ask):
        return False  # nobody asked for these questions
    last = history.last("open", outcome="done")
    begun = (each for each in history.entries if last and each.run == last.run)
    before = next((each.fact("image") for each in begun if each.event == "begin"), "")
    return before not in ("", image) and bool(profile.keys.fingerprint)


def prove_or_warn(house: House, profile: Profile) -> dict[str, Any]:
    """At an open: what fails is a warning, for the mail can be read with what works."""
    try:
        proven = prove(house, profile)
    except MailboxError as error:
        house.progress.warn(f"{error.brief} {error.details}".strip())
        return {"code": error.code}
    for each in proven:
        if each.problem:
            whose = "The mailbox's own key" if each.role == "own" else ", ".join(each.addresses)
            house.progress.warn(
                f"{whose}: the updated mail client cannot use {each.fingerprint}: {each.problem}."
            )
    return facts_of(proven)


def _not_open(name: str) -> MailboxError:
    return MailboxError(
        f"{name} is not open; its keys are tried in its machine, by its mail client.",
        resolution=f"`mailbox open {name}` first.",
        code="not-open",
        exit_code=Exit.MACHINE,
    )


def _failed(name: str, reason: str) -> MailboxError:
    return MailboxError(
        f"The machine of {name} could not try its keys; they are as they were.",
        details=reason,
        resolution="Close and open the mailbox, and try again.",
        code="check-failed",
        exit_code=Exit.MACHINE,
    )
