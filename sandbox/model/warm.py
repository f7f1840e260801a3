"""The warm state of an image: what is noted of it, and whether it fits a machine. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_VERSION = 1
# In the order in which they are told; `{was}` and `{now}` are the two values.
_CHANGED = {
    "image": "it belongs to another image",
    "memory": "it has {was} bytes of memory and this machine has {now}",
    "cpus": "it has {was} processors and this machine has {now}",
    "acceleration": "it was made with {was} and this machine runs with {now}",
    "machine": "machines are built in another way now",
    "qemu": "QEMU was updated",
    "libvirt": "libvirt was updated",
    "cpu": "the processor is another one",
}


@dataclass(frozen=True)
class WarmNote:
    """A warm state: SHA-256 and size in bytes of its file, and what must be as it was."""

    sha256: str
    size: int
    fits: Mapping[str, str]

    def write(self) -> bytes:
        """As a JSON document."""
        return _write(asdict(self))


@dataclass(frozen=True)
class WarmFailure:
    """Why a warm state could not be made, when (UTC), and with what it would have fitted."""

    time: str
    reason: str
    fits: Mapping[str, str]

    def write(self) -> bytes:
        """As a JSON document."""
        return _write(asdict(self))


def _write(fields: Mapping[str, object]) -> bytes:
    return json.dumps({"version": _VERSION, **fields}, indent=1).encode() + b"\n"


def read_failure(content: bytes) -> WarmFailure | None:
    """The failure that `WarmFailure.write` wrote; None for anything else."""
    try:
        fields = json.loads(content)
        fits = {str(key): str(value) for key, value in fields["fits"].items()}
        known = fields["version"] == _VERSION
        return WarmFailure(str(fields["time"]), str(fields["reason"]), fits) if known else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_note(content: bytes) -> WarmNote | None:
    """The note that `WarmNote.write` wrote; None for anything else."""
    try:
        fields = json.loads(content)
        if fields.pop("version") != _VERSION:
            return None
        fits = {str(key): str(value) for key, value in fields.pop("fits").items()}
        note = WarmNote(fits=fits, **fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return note if isinstance(note.sha256, str) and isinstance(note.size, int) else None


def misfit(note: WarmNote | None, now: Mapping[str, str]) -> str | None:
    """Why a machine cannot begin from it, as the end of a sentence; None when it can."""
    if note is None:
        return "there is none"
    was = note.fits
    changed = [key for key in {**now, **was} if now.get(key) != was.get(key)]
    for key, text in _CHANGED.items():
        if key in changed:
            return text.format(was=was.get(key, "other"), now=now.get(key, "other"))
    return "something about it has changed" if changed else None
