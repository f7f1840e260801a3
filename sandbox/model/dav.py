"""Calendars and address books of an account: collections on a server (RFC 4791, RFC 6352)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlsplit

from sandbox.model import names
from sandbox.model.endpoints import (
    Endpoint,
    Security,
    host_problem,
    parse_target,
    port_problem,
)
from sandbox.model.schema import Reader

HTTPS_PORT = 443
MOST = 16  # of each kind; every server takes a forward of the machine
# What may stand in a path as it is; `%` because it is encoded already (RFC 3986).
_PATH = "/%:@!$&'()*+,;=-._~"


class Kind(StrEnum):
    """What is in a collection."""

    CALENDAR = "calendar"
    ADDRESS_BOOK = "address book"


class Password(StrEnum):
    """Which of the profile's passwords opens a collection."""

    MAIL = "mail"
    OWN = "own"


@dataclass(frozen=True)
class Collection:
    """A calendar or an address book: where it is, and with which login.

    Without a login it is the account's. `connect` is where the host really connects to, as for
    mail servers.
    """

    url: str
    name: str = ""
    login: str = ""
    password: Password = Password.MAIL
    connect: tuple[str, int] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The server, for the list of what a machine may reach."""
        parts = urlsplit(self.url)
        port = parts.port or HTTPS_PORT
        return Endpoint(parts.hostname or "", port, Security.TLS, self.connect)

    @property
    def is_place(self) -> bool:
        """Whether only a server is named, on which the collection is to be looked for."""
        return urlsplit(self.url).path in ("", "/")


@dataclass(frozen=True)
class Named:
    """A collection that was named and is to be found on its server, and the login for it."""

    kind: Kind
    collection: Collection
    login: str
    password: str = field(repr=False)


def parse_url(text: str) -> str:
    """A collection's URL in one form: https, host as A-label, no default port.

    Raises:
        ValueError: with what is wrong.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not a URL") from None
    if parts.scheme.lower() != "https":
        raise ValueError(f"{text!r} does not begin with https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must hold no login and no password")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r} has more than a path (? or #)")
    host = parts.hostname or ""
    problem = host_problem(host) or (port_problem(port) if port is not None else None)
    if problem:
        raise ValueError(problem)
    if any(ord(char) <= 32 or ord(char) == 127 for char in parts.path):
        raise ValueError(f"{text!r} has spaces or control characters")
    ascii_host = host.encode("idna").decode("ascii").lower()
    suffix = f":{port}" if port not in (None, HTTPS_PORT) else ""
    return f"https://{ascii_host}{suffix}{quote(parts.path, safe=_PATH) or '/'}"


def parse_place(text: str) -> str:
    """As `parse_url`; a host alone stands for what its server says it has."""
    said = text.strip()
    return parse_url(said if "://" in said else f"https://{said}/")


def read_collections(reader: Reader, key: str) -> tuple[Collection, ...]:
    """The array of tables `key` of an account."""
    found = tuple(_read(entry) for entry in reader.tables(key))
    if len(found) > MOST:
        reader.problem(key, f"has more than {MOST} entries")
    for url in repeated(found):
        reader.problem(key, f"{url} is there twice")
    return found


def repeated(collections: Iterable[Collection]) -> list[str]:
    """The URLs that are named more than once."""
    urls = [each.url for each in collections if each.url]
    return sorted({url for url in urls if urls.count(url) > 1})


def _read(entry: Reader) -> Collection:
    if not entry.has("url"):
        entry.problem("url", "is missing")
    collection = Collection(
        url=entry.parsed("url", parse_url, ""),
        name=entry.checked("name", names.text_problem, ""),
        login=entry.checked("login", names.text_problem, ""),
        password=entry.parsed("password", _password, Password.MAIL),
        connect=entry.parsed("connect", parse_target, None) if entry.has("connect") else None,
    )
    if collection.url and collection.is_place:
        entry.problem("url", f"{collection.url} names a server, not a collection on it")
    entry.finish()
    return collection


def _password(text: str) -> Password:
    try:
        return Password(text)
    except ValueError:
        raise ValueError(f"{text!r} is not mail or own") from None


def write_collections(collections: tuple[Collection, ...]) -> list[dict[str, Any]]:
    """The entries that `read_collections` understands."""
    return [_write(each) for each in collections]


def _write(collection: Collection) -> dict[str, Any]:
    connect = collection.connect
    return {
        "url": collection.url,
        "name": collection.name,
        **({"login": collection.login} if collection.login else {}),
        "password": str(collection.password),
        **({"connect": f"{connect[0]}:{connect[1]}"} if connect else {}),
    }
