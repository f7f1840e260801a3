"""A suspended machine goes on: paused back, its kept memory destroyed, a new channel."""

from __future__ import annotations

from typing import Any

from sandbox.lifecycle import given, kept
from sandbox.lifecycle.beside import Work
from sandbox.lifecycle.engine import Plan, Step
from sandbox.lifecycle.house import House
from sandbox.lifecycle.machine import (
    CHANNEL_DEADLINE_S,
    CUSTODY,
    hold_key,
    machine_spec,
    secrets_of,
    secrets_sent,
    start_warden,
    with_console,
)
from sandbox.lifecycle.soundness import sound_volume, warn_of_changes
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image
from sandbox.model.profile import Profile
from sandbox.model.secrets import STATE_KEY, VOLUME_KEY
from sandbox.state import files

WAKE_DEADLINE_S = 240.0

# The warden starts, and image and memory are read, beside the return of the machine: it stands
# still, and nothing depends on them before `consume`.
_STEPS = (
    Step("check", "Looking at the volume", "no machine is brought back for a damaged one"),
    Step("warden", "Starting the warden", "it carries the channel and what it allows"),
    Step("keys", "Taking the keys from the keyring", "for the volume and the suspended machine"),
    Step("restore", "Bringing the suspended machine back", "it stands still, for now"),
    Step("verify", "Verifying image and memory", "they must be as they were written"),
    Step("consume", "Destroying what was kept of it", "it goes on once and never again"),
    Step("channel", "Waiting for the machine", "new keys for the channel"),
    Step("wake", "Waking the mail client", "its connections are gone, and mail may have come"),
)


def plan_resume(name: str, image: str, *, custody: bool = False) -> Plan:
    """The steps from a suspended mailbox to a usable one."""
    at = next(number for number, step in enumerate(_STEPS) if step.id == "channel")
    steps = (*_STEPS[:at], *((CUSTODY,) if custody else ()), *_STEPS[at:])
    return Plan("open", name, steps, {"image": image, "suspended": True})


def spec_misfit(house: House, profile: Profile, image: Image) -> str | None:
    """Why the suspended machine cannot go on; None when it can."""
    problem = house.storage.suspend_problem()
    spec = machine_spec(house, profile, image, house.host.hardware())
    return problem or kept.kept_misfit(house, profile, spec, image.id)


class Resuming:
    """The effects of one resume."""

    def __init__(self, house: House, profile: Profile, image: Image) -> None:
        self.warnings: list[dict[str, str]] = []
        self._house = house
        self._profile = profile
        self._name = profile.name
        self._image = image
        self._domain = house.domain(profile.name)
        self._control = house.paths.control_socket(profile.name)
        self._keys: dict[str, str] = {}
        self._verified: list[Work] = []
        self._saved = ""
        self._given = ""

    def effects(self) -> dict[str, Any]:
        return {
            "check": self._check,
            "warden": self._start_warden,
            "keys": self._take_keys,
            "restore": self._restore,
            "verify": self._verify,
            "consume": self._consume,
            "custody": lambda: hold_key(self._house, self._profile),
            "channel": self._await_channel,
            "wake": self._wake,
        }

    def _check(self) -> None:
        sound = sound_volume(self._house, self._profile)
        warn_of_changes(self._house, self._name, sound)
        house, saved = self._house, self._house.paths.saved(self._name)
        self._verified = [
            house.beside(lambda: house.images.verify(self._image)),
            house.beside(lambda: house.storage.digest(saved)),
        ]

    def _start_warden(self) -> None:
        files.private_folder(self._house.paths.machine(self._name))
        start_warden(self._house, self._profile, up=True, held=True)

    def _take_keys(self) -> None:
        house = self._house
        self._keys = secrets_of(house, self._profile, VOLUME_KEY, STATE_KEY)
        sent = secrets_of(house, self._profile, *secrets_sent(self._profile))
        self._given = given.digest({**sent, VOLUME_KEY: self._keys[VOLUME_KEY]})
        note = kept.note_of(house, self._name)
        if note is None or note.secrets != self._given:
            raise _useless("a password or passphrase was changed")
        self._saved = note.saved

    def _restore(self) -> dict[str, Any]:
        house, paths, name = self._house, self._house.paths, self._name
        served = paths.volume_socket(name)
        window = paths.saved_file(name)
        house.storage.serve_disk(paths.volume(name), self._keys[VOLUME_KEY].encode(), served)
        house.storage.serve_file(paths.saved(name), self._keys[STATE_KEY].encode(), window)
        house.machines.restore(self._domain, window, served)
        house.storage.end(window)
        return {"resumed": True}

    def _verify(self) -> None:
        _, digest = [done() for done in self._verified]
        if digest != self._saved:
            raise _useless("its memory was damaged")

    def _consume(self) -> None:
        self._keys.clear()
        kept.discard(self._house, self._name, self._profile.id)
        self._house.machines.resume(self._domain)

    def _await_channel(self) -> None:
        warden = self._house.wardens.find(self._control)
        try:
            warden.wait_ready(CHANNEL_DEADLINE_S)
        except MailboxError as error:
            raise with_console(self._house, self._name, error) from None

    def _wake(self) -> dict[str, Any]:
        result = self._house.wardens.find(self._control).tell("resume", WAKE_DEADLINE_S)
        for warning in result.warnings:
            self.warnings.append({"code": warning.code, "message": warning.message})
            self._house.progress.warn(f"The machine says: {warning.message}")
        if not result.ok:
            raise _useless(result.error.message if result.error else "it says nothing")
        given.keep(self._house, self._profile, self._given)
        return {"warnings": [warning.code for warning in result.warnings]}


def _useless(reason: str) -> MailboxError:
    return MailboxError(
        f"The suspended machine cannot go on: {reason}.",
        code="suspended-useless",
        exit_code=Exit.MACHINE,
    )
