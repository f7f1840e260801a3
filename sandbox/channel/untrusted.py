"""What a guest says about itself, made safe to show: known events only, plain bounded text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from sandbox.channel.strict_json import StrictJsonError, parse_object

MAX_LINE = 64 * 1024
MAX_TEXT = 500
MAX_UPTIME_S = 10 * 365 * 24 * 3600.0

EventKind = Literal["phase", "warning", "error", "checked"]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}\Z", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?\Z", re.ASCII)
# CSI, OSC/DCS/APC/PM/SOS strings and two-character escapes, as ECMA-48 writes them.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_REQUIRED: dict[str, set[str]] = {
    "phase": {"event", "name"},
    "warning": {"event", "code", "message"},
    "error": {"event", "code", "message"},
    "checked": {"event", "key", "problem"},
}
_OPTIONAL = {"uptime"}


@dataclass(frozen=True)
class GuestEvent:
    """One checked event: `name` of a phase, or `code` and `message` of a warning or error.

    Of a key that was tried (`checked`), `name` is its fingerprint and `message` what is wrong.
    """

    kind: EventKind
    name: str = ""
    code: str = ""
    message: str = ""
    uptime: float | None = None


def clean_text(untrusted_text: str, limit: int = MAX_TEXT) -> str:
    """Return the text as one bounded line that cannot steer a terminal or reorder its words."""
    head = untrusted_text[: limit * 8]
    plain = "".join(_clean_character(character) for character in _ESCAPE.sub("", head))
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def _clean_character(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace() or category in ("Zl", "Zp"):
        return " "
    # Controls, format marks (bidi overrides among them), surrogates, private and unassigned.
    return "" if category.startswith("C") else character


def parse_event(untrusted_line: bytes) -> GuestEvent | None:
    """Return the event in one line of a guest's output, or None for anything else."""
    try:
        fields = parse_object(untrusted_line, MAX_LINE)
    except StrictJsonError:
        return None
    kind = fields.get("event")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        return None
    if not _REQUIRED[kind] <= set(fields) <= _REQUIRED[kind] | _OPTIONAL:
        return None
    return _event(cast(EventKind, kind), fields)


def _event(kind: EventKind, fields: dict[str, Any]) -> GuestEvent | None:
    if kind == "checked":
        return _checked(fields["key"], fields["problem"])
    label = fields["name" if kind == "phase" else "code"]
    message = fields.get("message", "")
    uptime = _uptime(fields["uptime"]) if "uptime" in fields else None
    if not isinstance(label, str) or not _NAME.match(label) or not isinstance(message, str):
        return None
    if "uptime" in fields and uptime is None:
        return None
    if kind == "phase":
        return GuestEvent(kind, name=label, uptime=uptime)
    return GuestEvent(kind, code=label, message=clean_text(message), uptime=uptime)


def _checked(key: object, problem: object) -> GuestEvent | None:
    if not isinstance(key, str) or not _FINGERPRINT.match(key) or not isinstance(problem, str):
        return None
    return GuestEvent("checked", name=key, message=clean_text(problem))


def _uptime(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    in_range = 0 <= value <= MAX_UPTIME_S and math.isfinite(value)
    return round(float(value), 3) if in_range else None


def event_fields(event: GuestEvent) -> dict[str, Any]:
    """Return the event as the JSON object that `parse_event` reads."""
    fields: dict[str, Any] = {"event": event.kind}
    if event.kind == "checked":
        fields |= {"key": event.name, "problem": event.message}
    elif event.kind == "phase":
        fields["name"] = event.name
    else:
        fields |= {"code": event.code, "message": event.message}
    if event.uptime is not None:
        fields["uptime"] = event.uptime
    return fields


class LineSplitter:
    """Cuts a guest's output into lines; a line that is too long is dropped and counted."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self.dropped = 0
        self._limit = limit
        self._line = bytearray()
        self._skipping = False

    def feed(self, untrusted_data: bytes) -> Iterator[bytes]:
        """Yield the lines that are complete after `untrusted_data`."""
        *complete, rest = untrusted_data.split(b"\n")
        for part in complete:
            self._add(part)
            if not self._skipping:
                yield bytes(self._line)
            self._reset()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        if self._skipping:
            return
        self._line += part
        if len(self._line) > self._limit:
            self.dropped += 1
            self._skipping = True
            self._line.clear()

    def _reset(self) -> None:
        self._line.clear()
        self._skipping = False
