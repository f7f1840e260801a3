"""Whether the key in the keyring opens the volume, and the truth when it does not. Only looks."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import observe
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import MachineState
from sandbox.model.profile import Profile
from sandbox.model.secrets import DAV_PASSWORD, MAIL_PASSWORD, VOLUME_KEY
from sandbox.state.journal import History


@dataclass(frozen=True)
class Sound:
    """A volume that its key opens; `changed` names keyslots that are not as they were noted."""

    key: bytes
    slot: int
    changed: tuple[str, ...] = ()


def recorded_header(history: History) -> Mapping[str, str]:
    """Each part of the header as it was noted when it last changed; empty when it never was."""
    for entry in reversed(history.entries):
        header = (entry.facts or {}).get("header")
        if isinstance(header, dict):
            return {str(part): str(digest) for part, digest in header.items()}
    return {}


def sound_volume(house: House, profile: Profile) -> Sound:
    """Look at a profile's volume with the key from the keyring; nothing is written.

    Raises:
        MailboxError: `volume-missing`, `volume-truncated`, `volume-header-damaged`,
            `keyring-item-missing`, `keyring-item-wrong`.
    """
    path = house.paths.volume(profile.name)
    house.volumes.check(path)
    noted = recorded_header(house.journal(profile.name).read())
    now = house.keyslots.fingerprints(path)
    if noted and noted.get("geometry") != now["geometry"]:
        raise _damaged(house, profile.name, "It no longer says truly how the data lie behind it.")
    _check_length(house, profile)
    key = stored_key(house, profile.name, profile.id)
    slot = house.keyslots.find(path, key)
    if slot is None:
        raise _does_not_open(house, profile.name, noted, now)
    return Sound(key, slot, _changed(noted, now))


def stored_key(house: House, name: str, profile_id: uuid.UUID) -> bytes:
    """The volume key in the keyring; raises `keyring-item-missing`."""
    key = house.vault.get(profile_id, VOLUME_KEY)
    if key is None:
        raise item_missing(name, VOLUME_KEY)
    return key.encode()


def item_missing(name: str, kind: str) -> MailboxError:
    """The error for a secret that the keyring does not have."""
    recovering = f"Restore the keyring, or `mailbox recover {name}` with the recovery code."
    giving = {
        MAIL_PASSWORD: f"Give it with `mailbox password {name}`.",
        DAV_PASSWORD: f"Give it with `mailbox password {name} --dav-password-stdin`.",
    }
    return MailboxError(
        f"The keyring has no {kind} for {name}; the mail on its volume is untouched.",
        details="It is another keyring than the one of the onboarding, or the item was deleted.",
        resolution=giving.get(kind, recovering),
        code="keyring-item-missing",
        exit_code=Exit.KEYRING,
    )


def refuse_open(house: House, name: str) -> None:
    """Refuse what cannot be done to a mailbox that is not closed; raises `mailbox-open`."""
    if observe(house, name).machine is not MachineState.CLOSED:
        raise MailboxError(
            f"{name} is open; its keyslots were not changed.",
            resolution=f"`mailbox close {name}` first.",
            code="mailbox-open",
            exit_code=Exit.BUSY,
        )


def warn_of_changes(house: House, name: str, sound: Sound) -> None:
    """Say that a keyslot other than the key's own was damaged or changed by somebody."""
    for part in sound.changed:
        house.progress.warn(
            f"Keyslot {part} of {name}'s volume is not as it was made: damaged, or changed by "
            "another program. The key in the keyring opens the volume, but the recovery code may "
            f"not. `mailbox recovery-code {name} --replace` makes a new one."
        )


def _changed(noted: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(part for part in noted if noted[part] != now.get(part)))


def _check_length(house: House, profile: Profile) -> None:
    path = house.paths.volume(profile.name)
    expected = house.keyslots.expected_size(path, profile.settings.volume_size)
    facts = house.volumes.look(path)
    if facts is not None and facts.size < expected:
        raise MailboxError(
            f"The volume {path} is cut off: {facts.size} of {expected} bytes are there. "
            "Nothing was written to it.",
            details="What lay behind the cut is not on this computer any more; mail on the "
            "provider's server is not concerned.",
            resolution="Copy the volume back from a backup.",
            code="volume-truncated",
            exit_code=Exit.DAMAGED,
        )


def _does_not_open(
    house: House, name: str, noted: Mapping[str, str], now: Mapping[str, str]
) -> MailboxError:
    slot_as_noted = noted and noted.get("0") == now.get("0")
    if slot_as_noted:
        return MailboxError(
            f"The key in the keyring is not the key of {name}'s volume; nothing was changed.",
            details="The volume's header is whole, and the mail behind it is untouched. The "
            "volume or the keyring is another one than before, such as an older copy.",
            resolution="Put the right volume or keyring back, or "
            f"`mailbox recover {name}` with the recovery code.",
            code="keyring-item-wrong",
            exit_code=Exit.KEYRING,
        )
    return _damaged(house, name, "The key in the keyring opens none of its keyslots.")


def _damaged(house: House, name: str, details: str) -> MailboxError:
    others = "" if house.paths.header_backup(name).exists() else " No header backup is there."
    return MailboxError(
        f"The header of {name}'s volume is damaged; nothing was written to it.",
        details=f"{details} The mail behind it is probably whole, but cannot be read without the "
        f"header.{others}",
        resolution=f"`mailbox repair {name}` puts a header backup back; "
        f"`mailbox recover {name}` tries the recovery code's keyslot. Else copy the volume back "
        "from a backup. Do not write to it meanwhile.",
        code="volume-header-damaged",
        exit_code=Exit.DAMAGED,
    )
