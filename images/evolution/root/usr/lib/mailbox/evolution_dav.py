"""From the desired state to Evolution's calendars and address books: pure functions.

They are "sources" as the mail account is one; evolution-data-server reads and serves them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
Groups = Mapping[str, Mapping[str, object]]

# What a source of ours is called, and no other.
CALENDAR, ADDRESS_BOOK = "mailbox-calendar-", "mailbox-address-book-"
PREFIXES = (CALENDAR, ADDRESS_BOOK)
# Where evolution-data-server keeps what it fetched, by source.
CACHES = {CALENDAR: "calendar", ADDRESS_BOOK: "addressbook"}
REFRESH_MINUTES = 5


def collections(desired: Json) -> Iterator[tuple[str, Json, Groups]]:
    """Each calendar and address book: its identifier, the wish, and its key file's groups."""
    colour = desired["profile"]["colour"]
    for number, wish in enumerate(desired.get("calendars") or []):
        calendar = {"BackendName": "caldav", "Color": colour, "Selected": True, "Order": number}
        yield (
            _identifier(CALENDAR, wish),
            wish,
            {**_source(wish, "caldav-stub"), "Calendar": calendar},
        )
    for number, wish in enumerate(desired.get("address_books") or []):
        groups = {
            **_source(wish, "carddav-stub"),
            "Address Book": {"BackendName": "carddav", "Order": number},
            "Autocomplete": {"IncludeMe": True},
        }
        yield _identifier(ADDRESS_BOOK, wish), wish, groups


def _identifier(prefix: str, wish: Json) -> str:
    """The same for the same collection and login, so that what was fetched of it stays."""
    text = "\n".join([wish["url"], wish["login"]])
    return prefix + hashlib.sha256(text.encode()).hexdigest()[:32]


def _source(wish: Json, parent: str) -> Groups:
    parts = urlsplit(wish["url"])
    return {
        "Data Source": {"DisplayName": wish["name"], "Enabled": True, "Parent": parent},
        "Authentication": {
            "Host": parts.hostname or "",
            "Port": parts.port or 443,
            "User": wish["login"],
            "Method": "plain/password",
            "RememberPassword": True,
        },
        "Security": {"Method": "tls"},
        "WebDAV Backend": {
            "ResourcePath": parts.path,
            "DisplayName": wish["name"],
            "AvoidIfmatch": False,
            # An invitation is sent by mail, by Evolution itself.
            "CalendarAutoSchedule": False,
        },
        # To be read without the server, too.
        "Offline": {"StaySynchronized": True},
        "Refresh": {"Enabled": True, "IntervalMinutes": REFRESH_MINUTES},
    }
