"""A suspended machine: what is noted of it, and whether it still fits. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.model.profile import Profile, write_profile

_VERSION = 1
_DAY_S = 24 * 3600.0
# In the order in which they are told.
_CHANGED = {
    "profile": "its profile was changed",
    "keys": "its keys were changed",
    "image": "there is a newer image",
    "machine": "the machine would be built in another way",
    "qemu": "QEMU was updated",
    "libvirt": "libvirt was updated",
    "cpu": "the processor is another one",
    "volume": "its volume was changed meanwhile",
}


@dataclass(frozen=True)
class Note:
    """A suspended machine; `saved` is its memory's digest, `fits` what must be as it was.

    `secrets` ties it to the secrets that it was given; nothing of them can be had from it without
    the volume's key.
    """

    profile_id: str
    time: float
    saved: str
    secrets: str
    fits: Mapping[str, str]

    def write(self) -> bytes:
        """As a JSON document."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=2).encode() + b"\n"


def read_note(content: bytes) -> Note | None:
    """The note that `Note.write` wrote; None for anything else."""
    try:
        fields = json.loads(content)
        if fields.pop("version") != _VERSION:
            return None
        fields["fits"] = {str(key): str(value) for key, value in fields["fits"].items()}
        return Note(**{**fields, "time": float(fields["time"])})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def misfit(note: Note | None, now: Mapping[str, str], age_s: float, keep_days: int) -> str | None:
    """Why the suspended machine cannot go on, as the end of a sentence; None when it can."""
    if note is None:
        return "its note cannot be read"
    if age_s < 0:
        return "it is from the future, so a clock is wrong"
    if age_s > keep_days * _DAY_S:
        return f"it is older than {keep_days} days, the limit in the profile"
    changed = [key for key in {**now, **note.fits} if now.get(key) != note.fits.get(key)]
    told = [text for key, text in _CHANGED.items() if key in changed]
    return (told[0] if told else "something about it has changed") if changed else None


def profile_digest(profile: Profile) -> str:
    """Tells whether anything in the profile was changed, but for when to suspend it."""
    document: dict[str, Any] = write_profile(profile)
    for key in ("on_close", "keep_days"):
        document["machine"].pop(key)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def secrets_digest(key: bytes, secrets: Mapping[str, str]) -> str:
    """Tells whether a secret was changed; worthless to who does not have the key."""
    text = json.dumps(dict(secrets), sort_keys=True).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()
