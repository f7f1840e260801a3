"""The effects of one open: what each step of its plan does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sandbox.lifecycle import given, kept, keycheck
from sandbox.lifecycle.desired import desired_state, held_on_host
from sandbox.lifecycle.house import House
from sandbox.lifecycle.machine import (
    CHANNEL_DEADLINE_S,
    hold_key,
    keys_for,
    machine_spec,
    secrets_of,
    secrets_sent,
    start_warden,
    with_console,
)
from sandbox.lifecycle.observe import Observation
from sandbox.lifecycle.smime import certificate_for
from sandbox.lifecycle.soundness import sound_volume, warn_of_changes
from sandbox.lifecycle.warm import start_machine
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keys import ExportedKeys
from sandbox.model.machine import Image
from sandbox.model.profile import Profile
from sandbox.model.secrets import (
    DAV_PASSWORD,
    KEY_PASSPHRASE,
    MAIL_PASSWORD,
    SMIME_PASSPHRASE,
    VOLUME_KEY,
)
from sandbox.state import files

# Deadline in seconds; emulated machines need about twenty times what KVM needs.
CLIENT_DEADLINE_S = 600.0


@dataclass
class OpenOutcome:
    """What an open learnt on its way: warnings of the guest, seconds of each phase and step."""

    warnings: list[dict[str, str]] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: bool = False
    # Whether the machine began from its image's warm state; why not, as the end of a sentence.
    warm: bool = False
    cold_reason: str = ""


class Opening:
    """The effects of one open; secrets live in this object's memory and nowhere else."""

    def __init__(
        self, house: House, profile: Profile, seen: Observation, image: Image | None
    ) -> None:
        self.outcome = OpenOutcome()
        self._house = house
        self._profile = profile
        self._seen = seen
        self._image = image
        self._domain = house.domain(profile.name)
        self._volume = house.paths.volume(profile.name)
        self._secrets: dict[str, str] = {}
        self._keys: tuple[ExportedKeys, ...] = ()
        self._public: dict[str, str] = {}
        self._smime: dict[str, Any] | None = None

    def effects(self) -> dict[str, Any]:
        return {
            "verify": self._verify,
            "check": self._check,
            "discard": lambda: kept.discard(self._house, self._profile.name, self._profile.id),
            "start": self._start,
            "warden": self._start_warden,
            "gather": self._gather,
            "custody": lambda: hold_key(self._house, self._profile),
            "channel": self._await_channel,
            "plug": self._plug,
            "provision": self._provision,
            "prove": lambda: keycheck.prove_or_warn(self._house, self._profile),
        }

    def _chosen_image(self) -> Image:
        if self._image is None:
            raise RuntimeError("a running machine keeps its image")
        return self._image

    def _verify(self) -> None:
        self._house.images.verify(self._chosen_image())

    def _check(self) -> None:
        sound = sound_volume(self._house, self._profile)
        warn_of_changes(self._house, self._profile.name, sound)

    def _start(self) -> dict[str, Any]:
        files.private_folder(self._house.paths.machine(self._profile.name))
        hardware = self._house.host.hardware()
        if not hardware:
            self._house.progress.warn(
                "This computer gives no hardware acceleration; the machine is emulated and slow."
            )
        spec = machine_spec(self._house, self._profile, self._chosen_image(), hardware)
        reason = start_machine(self._house, spec, self._chosen_image())
        self.outcome.warm, self.outcome.cold_reason = reason is None, reason or ""
        if reason:
            self._house.progress.detail(f"The machine boots, without a warm state: {reason}")
        return {"hardware": hardware, "warm": self.outcome.warm}

    def _start_warden(self) -> None:
        start_warden(self._house, self._profile, up=self._image is None or self.outcome.warm)

    def _gather(self) -> None:
        sent = secrets_sent(self._profile)
        self._secrets = secrets_of(self._house, self._profile, VOLUME_KEY, *sent)
        self._keys = keys_for(self._house, self._profile, self._secrets.get(KEY_PASSPHRASE))
        ring = self._house.profile_keyring(self._profile.name)
        if SMIME_PASSPHRASE in self._secrets:
            passphrase = self._secrets[SMIME_PASSPHRASE]
            self._smime = certificate_for(self._house, self._profile, passphrase)
        self._public = ring.public([each.fingerprint for each in self._profile.keys.correspondents])

    def _await_channel(self) -> None:
        begun = time.monotonic()
        try:
            self._answered()
        except MailboxError as error:
            if not self.outcome.warm:
                raise
            self._boot_instead(error)
            self._answered()
        self.outcome.phases["channel"] = round(time.monotonic() - begun, 3)

    def _answered(self) -> None:
        warden = self._house.wardens.find(self._house.paths.control_socket(self._profile.name))
        try:
            warden.wait_ready(CHANNEL_DEADLINE_S)
        except MailboxError as error:
            raise with_console(self._house, self._profile.name, error) from None

    def _boot_instead(self, error: MailboxError) -> None:
        """A machine that began warm and does not answer has touched nothing: it has no volume."""
        house = self._house
        house.progress.warn("The machine that began from the warm state does not answer; it boots.")
        house.progress.detail(error.details)
        house.wardens.kill(house.paths.control_socket(self._profile.name))
        house.machines.destroy(self._domain)
        spec = machine_spec(house, self._profile, self._chosen_image(), house.host.hardware())
        house.machines.start(spec)
        self.outcome.warm, self.outcome.cold_reason = False, "what began with it did not answer"
        start_warden(house, self._profile, up=False)

    def _plug(self) -> None:
        served = self._house.paths.volume_socket(self._profile.name)
        key = self._secrets[VOLUME_KEY].encode()
        self._house.storage.serve_disk(self._volume, key, served)
        self._house.machines.attach_volume(self._domain, served)

    def _provision(self) -> dict[str, Any] | None:
        warden = self._house.wardens.find(self._house.paths.control_socket(self._profile.name))
        begun = time.monotonic()

        def on_event(event: Any) -> None:
            if event.kind == "phase":
                self.outcome.phases[event.name] = round(time.monotonic() - begun, 3)
                self._house.progress.detail(event.name)
                if event.name == "home":
                    # The volume holds a file system from now on and is never formatted again.
                    files.remove(self._house.paths.blank(self._profile.name))

        try:
            result = warden.provision(self._desired(), on_event, CLIENT_DEADLINE_S)
        except MailboxError as error:
            raise with_console(self._house, self._profile.name, error) from None
        self._report(result.warnings)
        if not result.ok:
            raise _guest_error(result.error)
        given.keep(self._house, self._profile, given.digest(self._secrets))
        return {"warnings": [warning.code for warning in result.warnings]}

    def _report(self, warnings: Any) -> None:
        for warning in warnings:
            self.outcome.warnings.append({"code": warning.code, "message": warning.message})
            self._house.progress.warn(f"The machine says: {warning.message}")

    def _desired(self) -> dict[str, Any]:
        if MAIL_PASSWORD not in self._secrets:
            raise RuntimeError("the secrets were not gathered")
        return desired_state(
            self._profile,
            blank=self._house.paths.blank(self._profile.name).exists(),
            password=self._secrets[MAIL_PASSWORD],
            dav_password=self._secrets.get(DAV_PASSWORD, ""),
            keys=self._keys,
            public_keys=self._public,
            smime=self._smime,
            time_zone=self._house.host.time_zone(),
            keyboard=self._house.host.keyboard(),
        )


def provision_again(house: House, profile: Profile, seen: Observation) -> None:
    """Send a usable machine the desired state anew; raises what an open would."""
    work = Opening(house, profile, seen, None)
    for step in ("gather", *(("custody",) if held_on_host(profile) else ()), "provision"):
        work.effects()[step]()


_GUEST_ERRORS = {
    "volume-damaged": (
        "The volume holds no readable file system; nothing was written to it.",
        "Copy the volume back from a backup; do not shred it before you know what is on it.",
        Exit.DAMAGED,
    ),
    "volume-missing": (
        "The machine does not see its volume; nothing was written to it.",
        "Open again; `mailbox doctor` checks QEMU.",
        Exit.MACHINE,
    ),
    "key-import": (
        "The mail client did not accept the OpenPGP key; the mail is on its volume.",
        "Check the key with `gpg --list-secret-keys`.",
        Exit.KEYS,
    ),
}


def _guest_error(event: Any) -> MailboxError:
    code = event.code if event else "guest-error"
    brief, resolution, exit_code = _GUEST_ERRORS.get(
        code,
        (
            "The mail client could not be set up; the mail is safe on its volume.",
            "Open again; if it stays so, `mailbox image build --rebuild`.",
            Exit.MACHINE,
        ),
    )
    return MailboxError(
        brief,
        details=event.message if event else "",
        resolution=resolution,
        code=code,
        exit_code=exit_code,
    )
