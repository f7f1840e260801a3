"""The desired state of the demonstration's customer, as the host sends it into a machine."""

from __future__ import annotations

from typing import Any

from demo.correspondent import Person
from demo.davserver import ADDRESS_BOOK, CALENDAR, HOST, LOGIN, DavServer
from demo.mailserver import CUSTOMER, MailServer

Json = dict[str, Any]

SIGNATURE = "Anna Kundin\nKunde GmbH, Köln"


def desired_state(
    server: MailServer,
    customer: Person,
    correspondents: tuple[Person, ...],
    *,
    imap: str = "imap.kunde.test",
    smtp: str = "smtp.kunde.test",
    security: str = "tls",
    marionette: bool = True,
    dav: DavServer | None = None,
) -> Json:
    """Version 1 of the desired state, for a Thunderbird that reaches the server's own ports."""
    tls = security == "tls"
    login = {"login": CUSTOMER, "password": server.password(CUSTOMER), "security": security}
    ports = server.ports
    return {
        "version": 1,
        "profile": {"name": "kunde", "colour": "#2a7f62"},
        "language": "en",
        "time_zone": "Europe/Berlin",
        "account": {
            "address": CUSTOMER,
            "display_name": customer.name,
            "signature": SIGNATURE,
            "incoming": {
                "type": "imap",
                "host": imap,
                "port": ports.imaps if tls else ports.imap,
                **login,
            },
            "outgoing": {
                "type": "smtp",
                "host": smtp,
                "port": ports.submissions if tls else ports.submission,
                **login,
            },
        },
        "ca": [server.authority],
        "calendars": [_collection(dav, CALENDAR, "Termine")] if dav else [],
        "address_books": [_collection(dav, ADDRESS_BOOK, "Kontakte")] if dav else [],
        "openpgp": {
            "key": own_key(customer),
            "correspondents": [
                {
                    "fingerprint": person.fingerprint,
                    "addresses": [person.address],
                    "public": person.public_key(),
                }
                for person in correspondents
            ],
        },
        "policy": {"remote_content": False},
        "marionette": marionette,
    }


def own_key(person: Person) -> Json:
    """Somebody's key with its secret, as a mailbox is given its own."""
    return {
        "fingerprint": person.fingerprint,
        "secret": person.secret_key(),
        "passphrase": None,
        "public": person.public_key(),
    }


def _collection(dav: DavServer, path: str, name: str) -> Json:
    url = f"https://{HOST}:{dav.port}{path}"
    return {"url": url, "name": name, "login": LOGIN, "password": dav.password}
