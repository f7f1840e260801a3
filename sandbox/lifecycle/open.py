"""`open`: from a profile to a machine whose mail client is usable; undone as a whole."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sandbox.lifecycle.close import close_locked
from sandbox.lifecycle.desired import desired_state, forwards, hostname
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import Observation, observe
from sandbox.lifecycle.retain import refuse_kept
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.lifecycle.soundness import item_missing, sound_volume, warn_of_changes
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keys import ExportedKeys
from sandbox.model.machine import Image, MachineSpec, MachineState
from sandbox.model.profile import Profile
from sandbox.model.secrets import KEY_PASSPHRASE, MAIL_PASSWORD, VOLUME_KEY
from sandbox.state import files

# Deadlines in seconds; emulated machines need about twenty times what KVM needs.
CHANNEL_DEADLINE_S = 240.0
CLIENT_DEADLINE_S = 600.0
_CONSOLE_LINES = 12

_VERIFY = Step("verify", "Verifying the image", "it must be the one that was built")
_CHECK = Step("check", "Looking at the volume", "no machine is started for a damaged one")
_START = Step("start", "Starting the machine", "no machine of this mailbox runs")
_WARDEN = Step("warden", "Starting the warden", "it carries the channel and what it allows")
_GATHER = Step("gather", "Taking the secrets from the keyring", "the machine needs them once")
_CHANNEL = Step("channel", "Waiting for the machine", "it answers on the channel when it is up")
_PLUG = Step("plug", "Plugging the volume in", "the mail is there and nowhere else")
_PROVISION = Step("provision", "Setting up the mail client", "account, keys and policies as wished")


def plan_open(seen: Observation, image: str) -> Plan:
    """The steps from what is seen to a usable client; a running machine keeps what it has."""
    steps: tuple[Step, ...]
    if seen.machine is MachineState.CLOSED:
        steps = (_VERIFY, _CHECK, _START, _WARDEN, _GATHER, _CHANNEL, _PLUG, _PROVISION)
    else:
        warden = () if seen.warden else (_WARDEN,)
        plug = () if seen.plugged else (_PLUG,)
        steps = (*warden, _GATHER, _CHANNEL, *plug, _PROVISION)
    return Plan("open", seen.name, steps, {"image": image})


@dataclass
class OpenOutcome:
    """What an open learnt on its way: warnings of the guest, seconds of each phase."""

    warnings: list[dict[str, str]] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)


def open_mailbox(house: House, name: str, *, headless: bool) -> Result:
    """Open the mailbox, or show it again when it is open already."""
    known = settle_name(house, name)
    with house.locked(known, "open"):
        settle(house, known)
        profile = house.records.load(known)
        refuse_kept(house, known, str(profile.id))
        seen = observe(house, known)
        if _is_usable(house, seen):
            shown = not headless and _show(house, profile)
            return Result("open", known, f"{known} is open.", {"already": True, "shown": shown})
        outcome, seconds = _open(house, profile, seen)
    shown = not headless and _show(house, profile)
    facts = {
        "already": False,
        "shown": shown,
        "warnings": outcome.warnings,
        "seconds": seconds,
        "phases": outcome.phases,
    }
    return Result("open", known, f"{known} is open and the mail client is ready.", facts)


def _open(
    house: House, profile: Profile, seen: Observation
) -> tuple[OpenOutcome, dict[str, float]]:
    # A warden outlives a machine that was powered off from inside; it would be in the way.
    orphaned = seen.machine is MachineState.CLOSED and seen.warden
    if seen.machine is MachineState.PAUSED:
        # QEMU pauses a machine whose writes find no space, and loses none of them.
        house.progress.warn("The machine was paused, as it is when the disk is full; it goes on.")
        house.machines.resume(house.domain(profile.name))
        seen = observe(house, profile.name)
    elif orphaned or seen.machine is MachineState.UNKNOWN:
        close_locked(house, seen)
        seen = observe(house, profile.name)
    closed = seen.machine is MachineState.CLOSED
    image = house.images.newest(profile.settings.client) if closed else None
    work = _Opening(house, profile, seen, image)
    timings = run(
        plan_open(seen, image.id if image else seen.image),
        work.effects(),
        house.journal(profile.name),
        house.progress,
        undo=lambda: _undo(house, profile.name),
    )
    seconds = {timing.step: round(timing.seconds, 3) for timing in timings}
    return work.outcome, seconds


def _undo(house: House, name: str) -> None:
    seen = observe(house, name)
    close_locked(house, seen)


def _is_usable(house: House, seen: Observation) -> bool:
    """Whether an open finished and its machine, volume and channel are still there."""
    if seen.machine is not MachineState.OPEN or not (seen.warden and seen.plugged):
        return False
    control = house.paths.control_socket(seen.name)
    try:
        status = house.wardens.find(control).status()
    except MailboxError:
        return False
    return bool(status.state == "ready") and seen.pending is None


def _show(house: House, profile: Profile) -> bool:
    return house.host.show(house.domain(profile.name), profile.name)


class _Opening:
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
        self._keys: ExportedKeys | None = None
        self._public: dict[str, str] = {}

    def effects(self) -> dict[str, Any]:
        return {
            "verify": self._verify,
            "check": self._check,
            "start": self._start,
            "warden": self._start_warden,
            "gather": self._gather,
            "channel": self._await_channel,
            "plug": self._plug,
            "provision": self._provision,
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
        self._house.machines.start(self._spec(hardware))
        return {"hardware": hardware}

    def _spec(self, hardware: bool) -> MachineSpec:
        paths, name = self._house.paths, self._profile.name
        settings, image = self._profile.settings, self._chosen_image()
        return MachineSpec(
            name=self._domain,
            uuid=self._profile.id,
            title=f"{name} - mailbox",
            memory=settings.machine.memory,
            cpus=settings.machine.cpus,
            kernel=image.kernel,
            initrd=image.initrd,
            root_image=image.root,
            channel_socket=paths.channel_socket(name),
            display_socket=paths.display_socket(name),
            console_log=paths.console_log(name),
            hardware=hardware,
        )

    def _start_warden(self) -> None:
        paths, name = self._house.paths, self._profile.name
        self._house.wardens.start(
            {
                "profile_id": str(self._profile.id),
                "name": name,
                "channel_socket": str(paths.channel_socket(name)),
                "control_socket": str(paths.control_socket(name)),
                "log_file": str(paths.warden_log(name)),
                "hostname": hostname(name),
                "connect_deadline_s": CHANNEL_DEADLINE_S,
                "forwards": forwards(self._profile),
            }
        )

    def _gather(self) -> None:
        for kind in (VOLUME_KEY, MAIL_PASSWORD, KEY_PASSPHRASE):
            self._secrets[kind] = self._secret(kind)
        ring = self._house.profile_keyring(self._profile.name)
        keys = self._profile.keys
        self._keys = ring.export(keys.fingerprint, self._secrets[KEY_PASSPHRASE])
        self._public = ring.public([each.fingerprint for each in keys.correspondents])

    def _secret(self, kind: str) -> str:
        secret = self._house.vault.get(self._profile.id, kind)
        if secret is None:
            raise item_missing(self._profile.name, kind)
        return secret

    def _await_channel(self) -> None:
        warden = self._house.wardens.find(self._house.paths.control_socket(self._profile.name))
        begun = time.monotonic()
        try:
            warden.wait_ready(CHANNEL_DEADLINE_S)
        except MailboxError as error:
            raise self._with_console(error) from None
        self.outcome.phases["channel"] = round(time.monotonic() - begun, 3)

    def _plug(self) -> None:
        key = self._secrets[VOLUME_KEY].encode()
        self._house.machines.attach_volume(self._domain, self._volume, key)

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
            raise self._with_console(error) from None
        self._report(result.warnings)
        if not result.ok:
            raise _guest_error(result.error)
        return {"warnings": [warning.code for warning in result.warnings]}

    def _report(self, warnings: Any) -> None:
        for warning in warnings:
            self.outcome.warnings.append({"code": warning.code, "message": warning.message})
            self._house.progress.warn(f"The machine says: {warning.message}")

    def _desired(self) -> dict[str, Any]:
        if self._keys is None:
            raise RuntimeError("the secrets were not gathered")
        return desired_state(
            self._profile,
            blank=self._house.paths.blank(self._profile.name).exists(),
            password=self._secrets[MAIL_PASSWORD],
            keys=self._keys,
            public_keys=self._public,
            time_zone=self._house.host.time_zone(),
            keyboard=self._house.host.keyboard(),
        )

    def _with_console(self, error: MailboxError) -> MailboxError:
        """The error with the machine's last words; they are the guest's and may be anything."""
        try:
            untrusted = self._house.paths.console_log(self._profile.name).read_bytes()[-4096:]
        except OSError:
            return error
        lines = untrusted.decode(errors="replace").splitlines()[-_CONSOLE_LINES:]
        shown = "\n".join("  | " + "".join(c for c in line if c.isprintable()) for line in lines)
        details = f"{error.details}\nThe last lines of its console:\n{shown}".strip()
        return MailboxError(
            f"{error.brief} The mail on the volume is untouched.",
            details=details,
            resolution=error.resolution or "Try again; `mailbox image verify` checks the image.",
            code=error.code,
            exit_code=Exit.MACHINE,
        )


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
