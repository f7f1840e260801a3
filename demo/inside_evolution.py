"""Ask a running Evolution what it shows, from beside it: AT-SPI, as a screen reader does.

This one file is piped into `python3 -` in a guest and imports nothing of the package; the guest's
image has PyGObject and AT-SPI.  Evolution offers its windows there only when the mailbox was
opened with `marionette`.  Tasks and answers are those of `proof.py`.
"""

import email
import email.header
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Node = Any  # an Atspi.Accessible

STATE_DIR = Path("/run/mailbox-client")
HOME = Path("/home/mail-user")
ACCOUNT = "mailbox-account"
MESSAGES = HOME / ".cache/evolution/mail" / ACCOUNT / "folders/INBOX/cur"
SOURCES = HOME / ".config/evolution/sources"
DISPLAY_NAME = "Evolution Mail Display"
PROTECTION = "signature"
HIDDEN = "..."  # the outer subject of a message that protects its own
TURN_S = 20.0
STILL_S = 4.0
# There is no web view in these, and much else.
LISTS = ("menu bar", "menu", "combo box", "tree table", "table", "tool bar")


class AskError(Exception):
    """Evolution did not show what was asked for."""


class Desktop:
    """The windows of Evolution, read and used through AT-SPI."""

    def __init__(self, deadline_s: float) -> None:
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={STATE_DIR}/bus"
        os.environ["XDG_RUNTIME_DIR"] = str(STATE_DIR)
        os.environ.setdefault("DISPLAY", ":0")
        import gi  # type: ignore[import-not-found,unused-ignore]

        gi.require_version("Atspi", "2.0")
        from gi.repository import Atspi, GLib  # type: ignore[import-not-found,unused-ignore]

        self.spi: Any = Atspi
        self._events = GLib.MainContext.default()
        self._end = time.monotonic() + deadline_s

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        """The first true answer of `look`, before the deadline."""
        while True:
            self.refresh()
            try:
                found = look()
            except Exception:  # windows come and go while they are read
                found = None
            if found:
                return found
            if time.monotonic() > self._end:
                raise AskError(f"no {what} in time")
            time.sleep(0.3)

    def refresh(self) -> None:
        """Forget what was read before: nothing runs here that would be told of changes."""
        while self._events.iteration(False):
            pass
        self.spi.get_desktop(0).clear_cache()

    def children(self, node: Node) -> list[Node]:
        """What is directly in a node."""
        count = min(node.get_child_count(), 500)
        return [child for index in range(count) if (child := node.get_child_at_index(index))]

    def walk(self, node: Node) -> Iterator[Node]:
        """A node and all that is in it."""
        yield node
        for child in self.children(node):
            yield from self.walk(child)

    def windows(self) -> list[Node]:
        """Evolution's windows and dialogs."""
        programs = self.children(self.spi.get_desktop(0))
        return [
            window
            for program in programs
            if (program.get_name() or "").lower().endswith("evolution")
            for window in self.children(program)
        ]

    def find(self, top: Node, role: str, name: str) -> Node | None:
        """The first node of this role and name that can be seen."""
        nodes = (n for n in self.seen(top) if n.get_role_name() == role and n.get_name() == name)
        return next(nodes, None)

    def seen(self, node: Node) -> Iterator[Node]:
        """As `walk`, without what is hidden: menus are most of a window."""
        yield node
        for child in self.children(node):
            if self.has(child, "SHOWING"):
                yield from self.seen(child)

    def document(self, top: Node, name: str) -> Node | None:
        """The web view of this name; what surrounds one does not count as seen."""
        for child in self.children(top):
            role = child.get_role_name()
            if role == "document web" and child.get_name() == name:
                return child
            found = None if role in LISTS else self.document(child, name)
            if found is not None:
                return found
        return None

    def text(self, node: Node) -> str:
        """The text of a node."""
        return str(self.spi.Text.get_text(node, 0, -1)) if node.get_text_iface() else ""

    def has(self, node: Node, state: str) -> bool:
        """Whether a node is `CHECKED`, `SHOWING` and so on."""
        return bool(node.get_state_set().contains(getattr(self.spi.StateType, state)))

    def press(self, node: Node) -> None:
        """Do the node's first action."""
        if not self.spi.Action.do_action(node.get_action_iface(), 0):
            raise AskError(f"{node.get_name()!r} cannot be pressed")


class MessageList:
    """The message list of the inbox; its rows are those that it shows."""

    def __init__(self, desktop: Desktop) -> None:
        self._desktop = desktop
        run_evolution(f"folder://{ACCOUNT}/INBOX")
        self.window, self._list = desktop.until("message list", self._find)

    def _find(self) -> tuple[Node, Node] | None:
        for window in self._desktop.windows():
            found = self._desktop.find(window, "tree table", "Messages")
            if found is not None:
                return window, found
        return None

    def _table(self) -> Any:
        return self._list.get_table_iface()

    def subjects(self) -> list[str]:
        """The subjects, in the order of the rows."""
        table = self._table()
        columns = self._desktop.spi.Table.get_n_columns(table)
        rows = self._desktop.spi.Table.get_n_rows(table)
        cell = self._desktop.spi.Table.get_accessible_at
        return [str(cell(table, row, columns - 2).get_name()) for row in range(rows)]

    def select(self, row: int) -> None:
        """Select one row and no other; a busy Evolution is asked again."""
        spi, table = self._desktop.spi, self._table()

        def selected() -> bool:
            for other in range(spi.Table.get_n_rows(table)):
                if other != row and spi.Table.is_row_selected(table, other):
                    spi.Table.remove_row_selection(table, other)
            time.sleep(0.3)
            spi.Table.add_row_selection(table, row)
            return True

        self._desktop.until(f"row {row}", selected)


def run_evolution(argument: str) -> None:
    """Tell the running Evolution something."""
    command = ["/usr/bin/evolution", argument]
    environment = {**os.environ, "GSETTINGS_BACKEND": "keyfile", "COGL_DRIVER": "nop"}
    subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)


def facts(desktop: Desktop, task: Json) -> Json:
    """Accounts, keys and the inbox."""
    messages = MessageList(desktop)
    wanted = int(task.get("messages", 0))
    desktop.until("messages", lambda: len(messages.subjects()) >= wanted)
    sources = [_source(path) for path in sorted(SOURCES.glob("*.source"))]
    identities = [each for each in sources if "Mail Identity" in each]
    return {
        "accounts": [
            {"type": "imap", "name": each["Data Source"]["DisplayName"]}
            for each in sources
            if each.get("Mail Account", {}).get("BackendName") == "imapx"
        ],
        "identities": len(identities),
        "outgoing": [each["Authentication"] for each in sources if "Mail Transport" in each],
        "identity": {
            "address": identities[0]["Mail Identity"]["Address"],
            "name": identities[0]["Mail Identity"]["Name"],
        },
        "logins": [],
        "keys": _keys(),
        "colour": None,
        "inbox": {"messages": len(messages.subjects()), "subjects": messages.subjects()},
        "title": messages.window.get_name(),
        "offline": False,
    }


def _source(path: Path) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            current = groups.setdefault(line.strip("[]"), {})
        elif "=" in line:
            name, _, value = line.partition("=")
            current[name] = value
    return groups


def _keys() -> list[Json]:
    command = ["gpg", "--batch", "--with-colons", "--with-secret", "--list-keys"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: list[Json] = []
    for fields in (line.split(":") for line in listing.splitlines()):
        if fields[0] == "pub":
            found.append({"secret": fields[14] == "+", "acceptance": fields[1]})
        elif fields[0] == "fpr" and "fingerprint" not in found[-1]:
            found[-1]["fingerprint"] = fields[9]
    return found


def show(desktop: Desktop, task: Json) -> Json:
    """Open a message of the inbox and read what the window shows of it.

    Evolution is not asked by Message-ID; `text`, which is in the body, tells which one is meant.
    """
    messages = MessageList(desktop)
    # The newest first: which it is shows only when it is decrypted, so each gets its time, again
    # and again.
    rows = list(reversed(_rows(desktop, messages, task)))
    turn_s = TURN_S if len(rows) > 1 else None
    named = {"message_id": task.get("message_id") or ""}
    for row in itertools.cycle(rows):
        messages.select(row)
        reading = _settled(desktop, messages, task, turn_s=turn_s)
        if reading is not None:
            return named | reading
    raise AskError("no message to show")


def _settled(
    desktop: Desktop, messages: MessageList, task: Json, *, turn_s: float | None
) -> Json | None:
    """What is shown, as soon as it is what was asked for; None when its turn of `turn_s` is over.

    So it is when another message has been shown for a while.
    """
    display = desktop.until("message", lambda: desktop.document(messages.window, DISPLAY_NAME))
    expected, text = task.get("expect") or {}, str(task.get("text") or "")
    begun = time.monotonic()
    seen: tuple[Json, float] = ({}, begun)

    def settled() -> Json | None:
        nonlocal seen
        now, reading = time.monotonic(), _reading(desktop, display)
        wished = all(reading.get(name) == value for name, value in expected.items())
        if wished and reading["author"] and text in reading["body"]:
            return reading
        if reading != seen[0]:
            seen = (reading, now)
        still = bool(reading["body"]) and now - seen[1] > STILL_S
        return {"author": None} if turn_s and (still or now - begun > turn_s) else None

    first: Json = desktop.until("message as expected", settled)
    if not first["author"]:
        return None
    time.sleep(1)
    desktop.refresh()
    reading = _reading(desktop, display)
    return reading if reading["author"] else first


def _rows(desktop: Desktop, messages: MessageList, task: Json) -> list[int]:
    if task.get("index") is not None:
        return [int(task["index"])]
    if task.get("text"):
        subjects = desktop.until("messages", messages.subjects)
        # Those that hide their subject last, which is where the search begins.
        return sorted(range(len(subjects)), key=lambda row: (subjects[row] == HIDDEN, row))
    subject = task.get("subject")
    if task.get("message_id"):
        subject = _subject_of(desktop, messages, str(task["message_id"]))
    rows: list[int] = desktop.until(
        "such message",
        lambda: [row for row, each in enumerate(messages.subjects()) if each == subject],
    )
    return rows


def _subject_of(desktop: Desktop, messages: MessageList, message_id: str) -> str:
    """The outer subject of a message.

    Evolution finds messages by their identifiers only in a mode of its search bar; a message that
    was shown once lies in its cache, so they are shown one after the other until it is there.
    """
    count = len(desktop.until("messages", messages.subjects))
    for row in range(count):
        found = _cached(message_id)
        if found:
            return found
        before = _cache_size()
        messages.select(count - 1 - row)
        end = time.monotonic() + 20
        while _cache_size() == before and time.monotonic() < end:
            time.sleep(0.3)
        time.sleep(0.5)
    found = _cached(message_id)
    if not found:
        raise AskError(f"no message {message_id} in the inbox")
    return found


def _cache_size() -> int:
    return sum(1 for path in MESSAGES.rglob("*") if path.is_file())


def _cached(message_id: str) -> str | None:
    for path in MESSAGES.rglob("*"):
        if path.is_file():
            message = email.message_from_bytes(path.read_bytes())
            if str(message["Message-ID"] or "").strip("<> \r\n") == message_id:
                parts = email.header.decode_header(str(message["Subject"] or ""))
                return str(email.header.make_header(parts))
    return None


def _reading(desktop: Desktop, display: Node) -> Json:
    """The shown message: its headers, what is said of its protection, and its text."""
    cells: list[str] = []
    headers: dict[str, str] = {}
    body: list[str] = []
    label = ""
    for node in desktop.walk(display):
        role, text = node.get_role_name(), desktop.text(node)
        if role in ("row header", "column header"):
            label = text.strip(": ")
        elif role == "table cell":
            cells.append(text)
            headers.setdefault(label, _with_links(desktop, node, text))
        elif role in ("section", "paragraph", "static") and text.strip("\ufffc\xa0 \n"):
            body.append(text)
    return {
        "subject": headers.get("Subject", ""),
        "author": headers.get("From", ""),
        **_protection("\n".join(cells), headers.get("Security", "")),
        "body": "\n".join(body),
        "bars": [cell for cell in cells if PROTECTION in cell],
        "images": [],
    }


def _with_links(desktop: Desktop, node: Node, text: str) -> str:
    for child in desktop.children(node):
        text = text.replace("\ufffc", desktop.text(child), 1)
    return text


def _protection(shown: str, security: str) -> Json:
    """What the window says, in the words of `proof.Shown`."""
    signed = None
    if "Valid signature (" in shown:
        signed = "verified"
    elif "signature" in shown:
        signed = "unknown" if "cannot verify sender" in shown else "notok"
    return {
        "encrypted": "ok" if "encrypted" in security.lower() else None,
        "signed": signed,
        "technology": "S/MIME" if "S/MIME" in security else "OpenPGP",
    }


def reply(desktop: Desktop, task: Json) -> Json:
    """Answer a message as a person does: button, text, button."""
    shown = show(desktop, task | {"text": task.get("of")})
    earlier = desktop.windows()
    buttons = (desktop.find(window, "button", "Reply to Sender") for window in earlier)
    button = next(filter(None, buttons), None)
    if button is None:
        raise AskError("no button to reply")
    desktop.press(button)
    window = desktop.until("window to write in", lambda: _composer(desktop, earlier))
    _type(desktop, window, str(task["text"]))
    state = _composed(desktop, window)
    if task.get("send", True):
        send = desktop.find(window, "button", "Send")
        if send is None:
            raise AskError("no button to send")
        desktop.press(send)
        desktop.until("end of sending", lambda: len(desktop.windows()) <= len(earlier))
        state |= {"sent": True, "status": 0}
    return {**state, "shown": shown["subject"], "dialogs": dialogs(desktop, task)["dialogs"]}


def _composer(desktop: Desktop, earlier: list[Node]) -> Node | None:
    new = [window for window in desktop.windows() if window not in earlier]
    return next((w for w in new if desktop.find(w, "button", "Send")), None)


def _type(desktop: Desktop, window: Node, text: str) -> None:
    """Write at the beginning of the text, with the keyboard, until it stands there."""
    node = desktop.until("editor", lambda: desktop.document(window, ""))
    node.get_component_iface().grab_focus()
    time.sleep(1)
    desktop.spi.generate_keyboard_event(0, f"{text} ", desktop.spi.KeySynthType.STRING)
    desktop.until(
        "typed text",
        lambda: any(text in " ".join(desktop.text(n).split()) for n in desktop.walk(node)),
    )


def _composed(desktop: Desktop, window: Node) -> Json:
    def checked(name: str) -> bool:
        node = desktop.find(window, "toggle button", name)
        return node is not None and desktop.has(node, "CHECKED")

    fields = (n for n in desktop.seen(window) if n.get_role_name() == "text")
    to = next((desktop.text(n) for n in fields if n.get_name() == "To:"), "")
    return {
        "encrypt": checked("PGP Encrypt"),
        "sign": checked("PGP Sign"),
        "openpgp": checked("PGP Encrypt") or checked("PGP Sign"),
        "attach_key": False,
        "protect_subject": False,
        "to": [to],
        "subject": window.get_name(),
        "bars": [],
        "sent": False,
        "status": None,
    }


def dialogs(desktop: Desktop, _task: Json) -> Json:
    """Everything that lies over a window and waits for a person."""
    found = [w for w in desktop.windows() if w.get_role_name() in ("dialog", "alert")]
    texts = [" ".join(filter(None, map(desktop.text, desktop.seen(each)))) for each in found]
    return {"dialogs": [{"kind": "dialog", "text": text} for text in texts]}


TASKS = {"facts": facts, "open": show, "reply": reply, "dialogs": dialogs}


def perform(task: Json) -> Json:
    """Do one task; returns its result, or {"error": ...}."""
    try:
        return TASKS[task["do"]](Desktop(float(task.get("deadline_s", 60))), task)
    except Exception as error:  # whatever it is, the one who asks must learn of it
        return {"error": f"{type(error).__name__}: {error}"}


def main(arguments: list[str]) -> int:
    """Read a task, print its result as one line of JSON."""
    text = arguments[0] if arguments else sys.stdin.readline()
    result = perform(json.loads(text))
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
