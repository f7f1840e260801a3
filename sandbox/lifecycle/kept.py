"""What is kept of a suspended machine: memory on a volume of its own, that volume's key, a note.

A machine that goes on writes to its volume, and its kept memory would not fit any more: brought
back a second time it would destroy the file system. So the key is destroyed before it goes on,
and before any other machine gets the volume.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from sandbox.lifecycle import given
from sandbox.lifecycle.house import House
from sandbox.model.errors import MailboxError
from sandbox.model.machine import MachineSpec
from sandbox.model.profile import Profile
from sandbox.model.secrets import STATE_KEY
from sandbox.model.suspended import Note, misfit, read_note
from sandbox.state import files

# A saved machine is its memory, that of its devices, and the stream's own overhead (bytes).
_DEVICES = 256 * 1024**2


def capacity(memory: int) -> int:
    """The size of a volume that surely holds a machine of that much memory; it is sparse."""
    return memory + memory // 16 + _DEVICES


def is_kept(house: House, name: str) -> bool:
    """Whether a suspended machine is kept as a whole."""
    return _there(house.paths.saved_note(name)) and _there(house.paths.saved(name))


def is_anything_kept(house: House, name: str) -> bool:
    """Whether there is anything of a suspended machine, whole or not."""
    return _there(house.paths.saved_note(name)) or _there(house.paths.saved(name))


def _there(path: Path) -> bool:
    with files.readable_errors(path):
        return path.exists()


def note_of(house: House, name: str) -> Note | None:
    """The note, or None when it is missing or cannot be read."""
    try:
        return read_note(house.paths.saved_note(name).read_bytes())
    except OSError:
        return None


def fits(house: House, profile: Profile, spec: MachineSpec, image: str) -> Mapping[str, str]:
    """What must be the same at resume as it was at suspend."""
    volume = house.volumes.look(house.paths.volume(profile.name))
    return {
        **given.as_now(house, profile),
        "image": image,
        "volume": f"{volume.size} {volume.changed}" if volume else "missing",
        **house.machines.traits(spec),
    }


def keep(house: House, name: str, note: Note) -> None:
    """From here on the suspended machine is whole."""
    files.replace(house.paths.saved_note(name), note.write())


def kept_misfit(house: House, profile: Profile, spec: MachineSpec, image: str) -> str | None:
    """Why the kept machine cannot go on; None when it can."""
    note = note_of(house, profile.name)
    age = time.time() - note.time if note else 0.0
    now = fits(house, profile, spec, image)
    return misfit(note, now, age, profile.settings.machine.keep_days)


def discard(house: House, name: str, profile_id: uuid.UUID | None = None) -> None:
    """Destroy the key, then its volume and the note; may be repeated.

    Without its profile's id the key stays in the keyring, for a volume that is gone.
    """
    house.storage.end(house.paths.saved_file(name))
    identity = profile_id or _identity(house, name)
    if identity is not None:
        house.vault.delete(identity, STATE_KEY)
    house.volumes.erase_header(house.paths.saved(name))
    house.volumes.remove(house.paths.saved(name))
    files.remove(house.paths.saved_note(name))


def tidy(house: House, name: str, profile_id: uuid.UUID | None = None) -> None:
    """Discard what is kept unless it is whole."""
    identity = profile_id or _identity(house, name)
    key = house.vault.get(identity, STATE_KEY) if identity else None
    if key is None or not is_kept(house, name):
        discard(house, name, identity)


def _identity(house: House, name: str) -> uuid.UUID | None:
    try:
        return house.records.load(name).id
    except MailboxError:
        note = note_of(house, name)
    try:
        return uuid.UUID(note.profile_id) if note else None
    except ValueError:
        return None
