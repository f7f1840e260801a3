"""The journal: an append-only, hash-chained record of what was done to a profile.

One JSON line an entry; each carries the SHA-256 of the line before it. No secrets, no addresses,
no content of mails: it outlives the profile.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from sandbox.state import files

START = "0" * 64
# How many bytes are read first when only the newest entries matter; an open has about 5000.
_TAIL = 16 * 1024
# As json.dumps writes them; the last one in an `end` after which no verb is unfinished.
_BEGIN, _END = b'"event": "begin"', b'"event": "end"'
_IDLE = b'"idle": true, "previous": '
# Which unfinished verb decides what happens next: what destroys goes before what undoes.
_WEIGHT = (
    "shred",
    "onboard",
    "recover",
    "recovery-code",
    "header-backup",
    "header-restore",
    "retain",
    "close",
    "suspend",
    "open",
    "password",
    "keys add",
    "keys remove",
    "keys smime",
    "keys check",
    "keys generate",
    "keys rotate",
    "keys extend",
    "keys revoke",
    "keys forget",
)


@dataclass(frozen=True)
class Entry:
    """One entry: `event` is begin, step, done, undone, failed, or end (of a whole verb)."""

    time: str
    verb: str
    event: str
    run: str
    step: str = ""
    facts: Mapping[str, Any] | None = None

    def fact(self, name: str) -> str:
        """One of the facts as text; empty when it was not noted."""
        return str((self.facts or {}).get(name, ""))


@dataclass(frozen=True)
class History:
    """All entries of a journal; `broken_at` is the first line that does not fit the chain."""

    entries: tuple[Entry, ...]
    broken_at: int | None = None

    def pending(self, *verbs: str) -> Entry | None:
        """The begin entry of the verb (of these) that never ended and matters most, if any."""
        begun = _unended(self.entries)
        return next((begun[verb] for verb in verbs or _WEIGHT if verb in begun), None)

    def last(
        self, verb: str, event: str = "end", outcome: str = "", step: str = ""
    ) -> Entry | None:
        """The newest entry of a verb and event, and of an outcome or step where one is named."""
        found = (e for e in reversed(self.entries) if e.verb == verb and e.event == event)
        fitting = (e for e in found if not step or e.step == step)
        return next((e for e in fitting if not outcome or e.fact("outcome") == outcome), None)


class Journal:
    """The journal file of one profile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(
        self,
        verb: str,
        event: str,
        run: str,
        step: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an entry; it is on the disk when this returns."""
        files.private_folder(self._path.parent)
        entry: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "verb": verb,
            "event": event,
            "run": run,
        }
        if step:
            entry["step"] = step
        if facts:
            entry["facts"] = dict(facts)
        with files.readable_errors(self._path):
            self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "rb+") as file:
            tail = _tail(file, _is_idle)
            torn = bool(tail) and not tail.endswith(b"\n")
            lines = tail.splitlines()
            entry["previous"] = digest(lines[-1]) if lines else START
            if entry["event"] == "end" and _ends_all(lines, entry):
                entry["idle"] = True
            line = json.dumps(entry, sort_keys=True, ensure_ascii=False).encode() + b"\n"
            file.seek(0, os.SEEK_END)
            file.write(b"\n" + line if torn else line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            files.sync_folder(self._path.parent)

    def recent(self) -> History:
        """The newest begins and ends: the last open that succeeded, and all that is unfinished.

        Whoever looks at many mailboxes needs no more; the chain is not verified.
        """
        with files.readable_errors(self._path):
            if not self._path.exists():
                return History(())
            with self._path.open("rb") as file:
                return History(tuple(_ends(_tail(file, _tells_all))))

    def read(self) -> History:
        """The history so far; an absent journal has an empty one."""
        with files.readable_errors(self._path):
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        return History(tuple(_entries(lines)), _first_break(lines))


def _tail(file: BinaryIO, enough: Callable[[bytes], bool]) -> bytes:
    """The last whole lines of a journal, as many as are `enough`; else all of them."""
    end = at = file.seek(0, os.SEEK_END)
    length, tail = _TAIL, b""
    while at:
        at = max(0, end - length)
        file.seek(at)
        tail = file.read(end - at)
        tail = tail.partition(b"\n")[2] if at else tail
        if enough(tail):
            break
        length *= 2
    return tail


def _is_idle(tail: bytes) -> bool:
    return _IDLE in tail


def _tells_all(tail: bytes) -> bool:
    """Whether a point is in it at which nothing was unfinished, and after it a whole open."""
    after = tail.partition(_IDLE)[2].partition(b"\n")[2]
    opens = [entry for entry in _ends(after) if entry.verb == "open"]
    begun = {entry.run for entry in opens if entry.event == "begin"}
    return any(e.event == "end" and e.fact("outcome") == "done" and e.run in begun for e in opens)


def _ends(content: bytes) -> Iterator[Entry]:
    """The entries that begin or end a verb; the others are not even parsed."""
    return _entries([line for line in content.splitlines() if _BEGIN in line or _END in line])


def _ends_all(lines: list[bytes], end: Mapping[str, Any]) -> bool:
    """Whether nothing is unfinished once this entry is written."""
    return not _unended([*_entries(lines), Entry("", end["verb"], "end", end["run"])])


def _unended(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The begin entry of each verb that never ended."""
    begun: dict[str, Entry] = {}
    for entry in entries:
        if entry.event == "begin":
            begun[entry.verb] = entry
        elif entry.event == "end":
            _forget_ended(begun, entry)
    return begun


def _forget_ended(begun: dict[str, Entry], end: Entry) -> None:
    """Drop the verb that ended, and what a close has cleared away."""
    if end.verb in begun and begun[end.verb].run == end.run:
        del begun[end.verb]
        if end.verb == "close":
            begun.pop("open", None)
            begun.pop("suspend", None)
        if end.verb == "retain":  # it closes first
            begun.pop("open", None)
            begun.pop("close", None)
            begun.pop("suspend", None)
        if end.verb == "shred":
            begun.clear()


def digest(line: bytes) -> str:
    """The link that the next entry carries."""
    return hashlib.sha256(line).hexdigest()


def _entries(lines: list[bytes]) -> Iterator[Entry]:
    for line in lines:
        document = _parse(line)
        if document is not None:
            facts = document.get("facts")
            yield Entry(
                time=str(document.get("time", "")),
                verb=str(document.get("verb", "")),
                event=str(document.get("event", "")),
                run=str(document.get("run", "")),
                step=str(document.get("step", "")),
                facts=facts if isinstance(facts, dict) else None,
            )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _first_break(lines: list[bytes]) -> int | None:
    expected = START
    for number, line in enumerate(lines, start=1):
        document = _parse(line)
        if document is None:
            # A line torn by a power cut is no forgery as long as the next one links to it.
            expected = digest(line)
            continue
        if document.get("previous") != expected:
            return number
        expected = digest(line)
    return None
