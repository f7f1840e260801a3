"""What was said about a new mailbox, by options or in a file, before anybody has checked it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInputError
from sandbox.model.schema import Reader
from sandbox.state.records import parse_toml

_LISTS = ("correspondents", "connect_to", "caldav", "carddav")


@dataclass(frozen=True)
class Answers:
    """What was said about a new mailbox, unchecked; None is not said."""

    template: str | None = None
    client: str | None = None
    address: str | None = None
    display_name: str | None = None
    login: str | None = None
    imap: str | None = None
    smtp: str | None = None
    signature: str | None = None
    ca: str | None = None
    key: str | None = None
    key_file: str | None = None
    generate_key: bool | None = None
    size: str | None = None
    colour: str | None = None
    correspondents: tuple[str, ...] = ()
    connect_to: tuple[str, ...] = ()
    caldav: tuple[str, ...] = ()
    carddav: tuple[str, ...] = ()
    dav_login: str | None = None
    custody: str | None = None
    holder: str | None = None
    marionette: bool | None = None


def read_answers(path: str) -> Answers:
    """Answers from a TOML file whose entries are named as the flags (with underscores)."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInputError("The input", [f"--from: {path}: {error.strerror}"]) from None
    reader = Reader(parse_toml(content, f"The file {path}"))
    said: dict[str, Any] = {}
    for each in fields(Answers):
        kind = _kind(each.name)
        if reader.has(each.name):
            value = reader.get(each.name, kind)
            said[each.name] = tuple(map(str, value)) if isinstance(value, list) else value
    reader.finish()
    if reader.problems:
        raise InvalidInputError(f"The file {path}", reader.problems)
    return Answers(**said)


def _kind(name: str) -> type[Any]:
    if name in _LISTS:
        return list
    return bool if name in ("generate_key", "marionette") else str


def merge(flags: Answers, file: Answers) -> Answers:
    """Flags go before the file."""
    chosen = {
        each.name: getattr(flags, each.name) or getattr(file, each.name) for each in fields(Answers)
    }
    return Answers(**chosen)
