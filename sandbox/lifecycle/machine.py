"""What is said of a profile's machine to those who start, serve and question it."""

from __future__ import annotations

from typing import Any

from sandbox.lifecycle.desired import agent_forward, forwards, held_on_host, hostname
from sandbox.lifecycle.engine import Step
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import Observation
from sandbox.lifecycle.soundness import item_missing
from sandbox.model.custody import HeldBy
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keys import ExportedKeys
from sandbox.model.machine import Image, MachineSpec, MachineState
from sandbox.model.profile import Profile
from sandbox.model.secrets import DAV_PASSWORD, KEY_PASSPHRASE, MAIL_PASSWORD, SMIME_PASSPHRASE

# Deadline in seconds; emulated machines need about twenty times what KVM needs.
CHANNEL_DEADLINE_S = 240.0
_CONSOLE_LINES = 12

CUSTODY = Step("custody", "Holding the private key", "the machine may ask, and never has it")


def machine_spec(house: House, profile: Profile, image: Image, hardware: bool) -> MachineSpec:
    """The machine of a profile, built from an image."""
    paths, name = house.paths, profile.name
    return MachineSpec(
        name=house.domain(name),
        uuid=profile.id,
        title=f"{name} - mailbox",
        memory=profile.settings.machine.memory,
        cpus=profile.settings.machine.cpus,
        kernel=image.kernel,
        initrd=image.initrd,
        root_image=image.root,
        channel_socket=paths.channel_socket(name),
        display_socket=paths.display_socket(name),
        console_log=paths.console_log(name),
        hardware=hardware,
    )


def start_warden(house: House, profile: Profile, *, up: bool, held: bool = False) -> None:
    """Start the warden of a profile's machine, which is `up` or still to boot.

    One that is `held` begins with its machine when it is first waited for.
    """
    paths, name = house.paths, profile.name
    house.wardens.start(
        {
            "profile_id": str(profile.id),
            "name": name,
            "channel_socket": str(paths.channel_socket(name)),
            "control_socket": str(paths.control_socket(name)),
            "log_file": str(paths.warden_log(name)),
            "hostname": hostname(name),
            "connect_deadline_s": CHANNEL_DEADLINE_S,
            "forwards": forwards(profile),
            "agent": agent_forward(profile, paths.agent_socket(name)),
            "up": up,
            "held": held,
        }
    )


def hold_key(house: House, profile: Profile) -> dict[str, str]:
    """Start the guard in front of a private key that stays here; returns its rules."""
    paths, name, custody = house.paths, profile.name, profile.settings.custody
    rules = {"decrypt": str(custody.decrypt), "sign": str(custody.sign)}
    home = None if custody.holder is HeldBy.USER else str(paths.gnupg(name))
    house.custodians.start(
        {
            "profile_id": str(profile.id),
            "name": name,
            "fingerprint": profile.keys.fingerprint or "",
            "retired": list(profile.keys.retired),
            "home": home,
            "socket": str(paths.agent_socket(name)),
            "control": str(paths.custody_socket(name)),
            "log_file": str(paths.custody_log(name)),
            "activity": str(paths.activity(name)),
            "turns": str(paths.keyring_lock),
            **rules,
        }
    )
    return rules


def keys_for(house: House, profile: Profile, passphrase: str | None) -> tuple[ExportedKeys, ...]:
    """The own key and the retired ones for the machine; without a passphrase, the public parts."""
    ring, fingerprints = house.profile_keyring(profile.name), list(profile.keys.private)
    if passphrase is None:
        public = ring.public(fingerprints)
        return tuple(ExportedKeys(each, "", "", public[each]) for each in fingerprints)
    return tuple(ring.export(each, passphrase) for each in fingerprints)


def secrets_sent(profile: Profile) -> tuple[str, ...]:
    """The kinds of secrets that a machine of this profile is sent."""
    key = () if held_on_host(profile) else (KEY_PASSPHRASE,)
    certificate = (SMIME_PASSPHRASE,) if profile.smime else ()
    return (*passwords(profile), *key, *certificate)


def passwords(profile: Profile) -> tuple[str, ...]:
    """The kinds of passwords that its account has."""
    return (MAIL_PASSWORD, *((DAV_PASSWORD,) if profile.account.has_dav_password else ()))


def secrets_of(house: House, profile: Profile, *kinds: str) -> dict[str, str]:
    """The secrets of a profile, from the keyring.

    Raises:
        MailboxError: `keyring-item-missing`.
    """
    return {kind: _secret(house, profile, kind) for kind in kinds}


def _secret(house: House, profile: Profile, kind: str) -> str:
    secret = house.vault.get(profile.id, kind)
    if secret is None:
        raise item_missing(profile.name, kind)
    return secret


def is_usable(house: House, seen: Observation, *, pending_allowed: bool = False) -> bool:
    """Whether an open finished and its machine, volume and channel are still there."""
    if seen.machine is not MachineState.OPEN or not (seen.warden and seen.plugged and seen.served):
        return False
    control = house.paths.control_socket(seen.name)
    try:
        status = house.wardens.find(control).status()
    except MailboxError:
        return False
    return bool(status.state == "ready") and (pending_allowed or seen.pending is None)


def carries_all(house: House, profile: Profile) -> bool:
    """Whether the warden carries just what the profile names: its servers, a key that is held."""
    try:
        status = house.wardens.find(house.paths.control_socket(profile.name)).status()
    except MailboxError:
        return False
    carried = {(each.name if each.port else "", each.listen, each.port) for each in status.forwards}
    wanted = {(each["name"], each["listen"], each["port"]) for each in forwards(profile)}
    agent = agent_forward(profile, house.paths.agent_socket(profile.name))
    return carried == wanted | ({("", agent["listen"], 0)} if agent else set())


def with_console(house: House, name: str, error: MailboxError) -> MailboxError:
    """The error with the machine's last words; they are the guest's and may be anything."""
    try:
        untrusted = house.paths.console_log(name).read_bytes()[-4096:]
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


def warning_facts(warning: Any) -> dict[str, str]:
    """A warning of the guest, for reports."""
    return {"code": warning.code, "message": warning.message}
