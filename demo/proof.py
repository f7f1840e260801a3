"""What a mail client shows, as typed facts: the host's half of `inside.py` and its sisters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from demo import inside, inside_eds, inside_evolution

JAVASCRIPT = Path(__file__).with_name("js")
# What is piped into a guest with that client.
PROGRAMS = {"thunderbird": Path(inside.__file__), "evolution": Path(inside_evolution.__file__)}
# Tasks that another program does there.
OTHERS = {("evolution", "dav"): Path(inside_eds.__file__)}
FILES = {"reply": "compose", "write": "compose"}  # the others are named like their task

Json = dict[str, Any]
Ask = Callable[[Json], Json]
T = TypeVar("T")


class ProofError(Exception):
    """The mail client could not be asked."""


@dataclass(frozen=True)
class Facts:
    """Accounts, keys and the inbox."""

    accounts: list[Json]
    identities: int
    outgoing: list[Json]
    identity: Json
    logins: list[str]
    keys: list[Json]
    colour: str | None
    inbox: Json
    title: str
    offline: bool
    preferences: Json = field(default_factory=dict)
    addons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """One opened message, as its window shows it.

    `encrypted` is `ok`, `notok` or None; `signed` is `verified` only for a good signature by a key
    that was accepted as verified (`ok` is the own key).
    """

    subject: str
    author: str
    message_id: str
    encrypted: str | None
    signed: str | None
    technology: str
    body: str
    bars: list[str]
    images: list[Json]


@dataclass(frozen=True)
class Composed:
    """A compose window before sending, and what became of it."""

    encrypt: bool
    sign: bool
    openpgp: bool
    attach_key: bool
    protect_subject: bool
    to: list[str]
    subject: str
    bars: list[str]
    sent: bool
    status: int | None
    dialogs: list[Json]
    bars_after: list[str] = field(default_factory=list)
    failure: str | None = None


@dataclass(frozen=True)
class Collections:
    """Calendars and address books, each with name, URL and what is in it."""

    calendars: list[Json]
    address_books: list[Json]


class Proof:
    """Questions to one running mail client, asked by `ask`: a task in, a result out."""

    def __init__(self, ask: Ask, *, deadline_s: float = 60, scripted: bool = True) -> None:
        self._ask = ask
        self._scripted = scripted  # Thunderbird is sent the script, too
        self._deadline_s = deadline_s

    def facts(
        self,
        *,
        messages: int = 0,
        preferences: tuple[str, ...] = (),
        certificates: bool = False,
    ) -> Facts:
        """Accounts, keys and inbox, once the inbox holds at least `messages`."""
        task = {"do": "facts", "messages": messages, "preferences": list(preferences)}
        task["certificates"] = certificates
        return _typed(Facts, self._do(task))

    def open(
        self,
        *,
        subject: str | None = None,
        message_id: str | None = None,
        index: int | None = None,
        expect: Json | None = None,
        text: str | None = None,
    ) -> Shown:
        """Open a message of the inbox; `expect` names readings worth waiting for.

        `text` is in its body: for a client that is not asked by Message-ID (Evolution).
        """
        task = {"subject": subject, "message_id": message_id, "index": index, "expect": expect}
        task["text"] = text
        return _typed(Shown, self._do({"do": "open", **_present(task)}))

    def reply(self, text: str, *, send: bool | None = True, **which: Any) -> Composed:
        """Answer a message, named as in `open`; False discards it, None leaves the window open.

        `of` is in its body, as `text` is for `open`.
        """
        return _typed(Composed, self._do({"do": "reply", "text": text, "send": send, **which}))

    def write(self, to: str, subject: str, text: str, *, send: bool | None = True) -> Composed:
        """Write a new message; `send` as in `reply`."""
        task = {"do": "write", "to": to, "subject": subject, "text": text, "send": send}
        return _typed(Composed, self._do(task))

    def collections(self, *, entries: tuple[str, ...] = (), **added: Json) -> Collections:
        """Calendars and address books, once these entries are there.

        `add_event` (`calendar`, `summary`) and `add_contact` (`address_book`, `name`, `address`)
        put one in first, as a person would.
        """
        task = {"do": "dav", "entries": list(entries), **added}
        return _typed(Collections, self._do(task))

    def keep(self, message_id: str, folder: str) -> int:
        """Move a message into a folder on the volume; how many are in it (Thunderbird only)."""
        task = {"do": "keep", "message_id": message_id, "folder": folder}
        return int(self._do(task)["messages"])

    def kept(self, folder: str, *, messages: int = 1) -> list[str]:
        """The subjects in a folder on the volume, once there are as many (Thunderbird only)."""
        return list(self._do({"do": "kept", "folder": folder, "messages": messages})["subjects"])

    def dialogs(self) -> list[Json]:
        """Everything that lies over a window and waits for a person."""
        return list(self._do({"do": "dialogs"})["dialogs"])

    def _do(self, task: Json) -> Json:
        source = {"script": _javascript(task["do"])} if self._scripted else {}
        result = self._ask({"deadline_s": self._deadline_s, **source, **task})
        if "error" in result:
            raise ProofError(f"{task['do']}: {result['error']}")
        return result


def locally(port: int) -> Ask:
    """Ask a Thunderbird on this machine."""
    return lambda task: inside.perform({**task, "port": port})


def through(run: Callable[[bytes], bytes], *, port: int = 2828, client: str = "thunderbird") -> Ask:
    """Ask a mail client elsewhere: `run` pipes its argument into `python3 -` there."""

    def ask(task: Json) -> Json:
        output = run(script({**task, "port": port}, client)).decode(errors="replace")
        return _answer(output.strip().splitlines())

    return ask


def elsewhere(run: Callable[[bytes], bytes], client: str, *, deadline_s: float) -> Proof:
    """Questions to this kind of client, where `run` pipes a program into `python3 -`."""
    ask = through(run, client=client)
    return Proof(ask, deadline_s=deadline_s, scripted=client == "thunderbird")


def _answer(output: list[str]) -> Json:
    try:
        result = json.loads(output[-1])
    except (IndexError, ValueError):
        raise ProofError(f"no answer from inside: {output[-1:]}") from None
    if not isinstance(result, dict):
        raise ProofError("an answer from inside that is no object")
    return result


def script(task: Json, client: str = "thunderbird") -> bytes:
    """A program for `python3 -` that does one task and prints its result."""
    program = OTHERS.get((client, task["do"]), PROGRAMS[client])
    source = program.read_text(encoding="utf-8")
    body = source.partition('\nif __name__ == "__main__":')[0]
    return f"{body}\nsys.exit(main([{json.dumps(task)!r}]))\n".encode()


def _javascript(name: str) -> str:
    parts = ("helpers", FILES.get(name, name))
    return "\n".join((JAVASCRIPT / f"{part}.js").read_text(encoding="utf-8") for part in parts)


def _present(task: Json) -> Json:
    return {name: value for name, value in task.items() if value is not None}


def _typed(kind: type[T], result: Json) -> T:
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in result.items() if name in names})
    except TypeError as error:
        raise ProofError(f"an incomplete answer from inside: {error}") from None
