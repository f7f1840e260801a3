"""Ask Evolution's data server what is in its calendars and address books, or put something in.

This one file is piped into `python3 -` in a guest, as `inside_evolution.py` is; its image has
PyGObject.  The data server is what Evolution itself asks, over the same bus.
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

Json = dict[str, Any]

STATE_DIR = Path("/run/mailbox-client")
SOURCES = Path("/home/mail-user/.config/evolution/sources")
NAMES = "org.gnome.evolution.dataserver."
FOREVER_MS = 60_000
# By a collection's kind: service, factory, how to open, and how to list and add entries.
CALENDAR = ("Calendar", "CalendarFactory", "OpenCalendar", "GetObjectList", "#t", "CreateObjects")
ADDRESS_BOOK = (
    *("AddressBook", "AddressBookFactory", "OpenAddressBook"),
    *("GetContactList", "", "CreateContacts"),
)


class Server:
    """The data server of a session."""

    def __init__(self) -> None:
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={STATE_DIR}/bus"
        from gi.repository import Gio, GLib  # type: ignore[import-not-found,unused-ignore]

        self._glib: Any = GLib
        self._bus: Any = Gio.bus_get_sync(Gio.BusType.SESSION)
        bus = ("org.freedesktop.DBus", "/", "org.freedesktop.DBus")
        self._names = self._call(*bus, "ListActivatableNames", None, ())[0]

    def collection(self, kind: tuple[str, ...], uid: str) -> tuple[str, str, str]:
        """Bus name, path and interface of an open collection."""
        service, factory, opening = kind[:3]
        name = next(each for each in self._names if each.startswith(NAMES + service))
        place = (name, f"/org/gnome/evolution/dataserver/{factory}", NAMES + factory)
        path, owner = self._call(*place, opening, "(s)", (uid,))
        found = (owner, path, NAMES + service)
        self._call(*found, "Open", None, ())
        return found

    def entries(self, kind: tuple[str, ...], uid: str) -> list[str]:
        """All that is in a collection, as iCalendar or vCard."""
        place = self.collection(kind, uid)
        return list(self._call(*place, kind[3], "(s)", (kind[4],))[0])

    def add(self, kind: tuple[str, ...], uid: str, text: str) -> None:
        """Put something in, as Evolution does when a person saves it."""
        self._call(*self.collection(kind, uid), kind[5], "(asu)", ([text], 0))

    def _call(self, *call: Any) -> Any:
        name, path, interface, method, form, values = call
        arguments = self._glib.Variant(form, values) if form else None
        return self._bus.call_sync(
            name, path, interface, method, arguments, None, 0, FOREVER_MS, None
        ).unpack()


def sources(prefix: str) -> dict[str, Json]:
    """The sources of a kind by their identifier: name and colour."""
    found = {}
    for path in sorted(SOURCES.glob(f"{prefix}*.source")):
        lines = [line.partition("=") for line in path.read_text().splitlines()]
        entries = {name: value for name, _, value in lines}
        found[path.stem] = {"name": entries["DisplayName"], "colour": entries.get("Color")}
    return found


def field(text: str, name: str) -> str:
    """The value of a property of an entry."""
    unfolded = text.replace("\r\n ", "").replace("\r\n\t", "").splitlines()
    found = [line for line in unfolded if line.partition(":")[0].split(";")[0] == name]
    return found[0].partition(":")[2] if found else ""


def event(text: str) -> str:
    """How an event is called."""
    return field(text, "SUMMARY")


def contact(text: str) -> str:
    """How a contact is called, and where it gets mail."""
    return f"{field(text, 'FN')} <{field(text, 'EMAIL')}>"


def look(server: Server) -> Json:
    """Everything there is."""
    calendars, books = sources("mailbox-calendar-"), sources("mailbox-address-book-")
    return {
        "calendars": [
            {**facts, "entries": sorted(map(event, server.entries(CALENDAR, uid)))}
            for uid, facts in calendars.items()
        ],
        "address_books": [
            {**facts, "entries": sorted(map(contact, server.entries(ADDRESS_BOOK, uid)))}
            for uid, facts in books.items()
        ],
    }


def add(server: Server, task: Json) -> None:
    """What the task wants put in."""
    new = uuid.uuid4()
    if "add_event" in task:
        wish = task["add_event"]
        uid = named(sources("mailbox-calendar-"), wish["calendar"])
        lines = ["BEGIN:VEVENT", f"UID:{new}", "DTSTAMP:20260101T000000Z"]
        lines += ["DTSTART:20300115T100000Z", "DTEND:20300115T110000Z"]
        lines += [f"SUMMARY:{wish['summary']}", "END:VEVENT", ""]
        server.add(CALENDAR, uid, "\r\n".join(lines))
    if "add_contact" in task:
        wish = task["add_contact"]
        uid = named(sources("mailbox-address-book-"), wish["address_book"])
        lines = ["BEGIN:VCARD", "VERSION:3.0", f"UID:{new}", f"FN:{wish['name']}"]
        lines += [f"N:{wish['name']};;;;", f"EMAIL:{wish['address']}", "END:VCARD", ""]
        server.add(ADDRESS_BOOK, uid, "\r\n".join(lines))


def named(found: dict[str, Json], name: str) -> str:
    """The identifier of the source that is called so."""
    return next(uid for uid, facts in found.items() if facts["name"] == name)


def perform(task: Json) -> Json:
    """Do the task; returns its result, or {"error": ...}."""
    end = time.monotonic() + float(task.get("deadline_s", 60))
    try:
        server = Server()
        add(server, task)
        while True:
            found = look(server)
            there = [
                entry
                for each in (*found["calendars"], *found["address_books"])
                for entry in each["entries"]
            ]
            missing = [entry for entry in task.get("entries", []) if entry not in there]
            if not missing:
                return found
            if time.monotonic() > end:
                return {"error": f"not in time: {missing}, there is {there}"}
            time.sleep(0.5)
    except Exception as error:  # whatever it is, the one who asks must learn of it
        return {"error": f"{type(error).__name__}: {error}"}


def main(arguments: list[str]) -> int:
    """Read a task, print its result as one line of JSON."""
    result = perform(json.loads(arguments[0] if arguments else sys.stdin.readline()))
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
