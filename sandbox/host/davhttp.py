"""Questions to a CalDAV or CardDAV server: PROPFIND over TLS (RFC 4918), answers read with care.

The password goes to a server only after its certificate was verified, only to the host that was
named or one below it, and never into a message.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from sandbox.host.maillogin import Login, OnlyOAuth, Refused
from sandbox.model.dav import Collection, parse_url

_MOST_BYTES = 2 * 1024 * 1024
_MOST_REDIRECTS = 5
_MULTI_STATUS = 207
_REDIRECTS = (301, 302, 307, 308)
_AUTHENTICATION = (401, 407)
DAV = "{DAV:}"
CALDAV = "{urn:ietf:params:xml:ns:caldav}"
CARDDAV = "{urn:ietf:params:xml:ns:carddav}"
_QUESTION = b"""<?xml version="1.0" encoding="utf-8"?>
<propfind xmlns="DAV:" xmlns:c="urn:ietf:params:xml:ns:caldav"
  xmlns:r="urn:ietf:params:xml:ns:carddav"><prop>
<resourcetype/><displayname/><current-user-principal/>
<c:calendar-home-set/><c:supported-calendar-component-set/><r:addressbook-home-set/>
</prop></propfind>"""


class Elsewhere(Exception):  # noqa: N818 - a server's answer
    """The server sends us to a host that was not named; carries the place."""


class NoDav(Exception):  # noqa: N818 - a server's answer
    """What is there does not answer a PROPFIND; carries only text that may be shown."""


@dataclass(frozen=True)
class Resource:
    """One resource of an answer; every text in it is the server's."""

    url: str
    types: frozenset[str] = frozenset()
    name: str = ""
    principal: str = ""
    homes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    components: frozenset[str] = frozenset()


class Server:
    """The server of one collection that was named, asked with one login."""

    def __init__(
        self, named: Collection, login: Login, context: ssl.SSLContext, timeout_s: float
    ) -> None:
        self._named = named
        self._login = login
        self._timeout_s = timeout_s
        self._opener = urllib.request.OpenerDirector()
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        self._passwords = passwords
        for handler in (
            _Https(named, context),
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def look(self, url: str, depth: int = 0) -> list[Resource]:
        """The resource at a place, with `depth` 1 also what it holds.

        Raises:
            Elsewhere, NoDav, Refused, OnlyOAuth, OSError: when there is no answer of use.
        """
        for _ in range(_MOST_REDIRECTS):
            place = self._allowed(url)
            answer = self._ask(place, depth)
            if isinstance(answer, bytes):
                return list(_resources(place, answer))
            url = urljoin(place, answer)
        raise NoDav("it redirects again and again")

    def _allowed(self, url: str) -> str:
        try:
            place = parse_url(url)
        except ValueError as error:
            raise NoDav(f"it names a place of no use: {error}") from None
        host, named = urlsplit(place).hostname or "", self._named.endpoint.host
        if host != named and not host.endswith(f".{named}"):
            raise Elsewhere(place)
        return place

    def _ask(self, url: str, depth: int) -> bytes | str:
        """The body of the answer, or where it sends us."""
        self._passwords.add_password(None, [url], self._login.name, self._login.password)
        request = urllib.request.Request(  # noqa: S310 - https only: see _allowed
            url,
            data=_QUESTION,
            headers={"Depth": str(depth), "Content-Type": "application/xml; charset=utf-8"},
            method="PROPFIND",
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                if response.status != _MULTI_STATUS:
                    raise NoDav(f"it answers {response.status}")
                return bytes(response.read(_MOST_BYTES))
        except HTTPError as error:
            return self._explain(error)
        except UnicodeError:  # its text would hold the password
            raise Refused("it takes only ASCII characters in login and password") from None
        except ValueError as error:  # urllib knows neither Bearer nor Negotiate
            if "bearer" in str(error).lower():
                raise OnlyOAuth from None
            raise Refused("it offers no login with a password") from None

    def _explain(self, error: HTTPError) -> str:
        with error:
            if error.code in _REDIRECTS and error.headers.get("Location"):
                return str(error.headers["Location"])
            if error.code in _AUTHENTICATION:
                offered = str(error.headers.get("WWW-Authenticate", "")).lower()
                if "bearer" in offered and "basic" not in offered and "digest" not in offered:
                    raise OnlyOAuth
                raise Refused(self._login.told_by(f"{error.code} {error.reason}"))
            raise NoDav(f"it answers {self._login.told_by(f'{error.code} {error.reason}')}")


class _Https(urllib.request.HTTPSHandler):
    """HTTPS that connects to where the server really is."""

    def __init__(self, named: Collection, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._named = named.endpoint
        self._tls = context

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)

    def _connection(
        self, host: str, *, timeout: float = 0, **_: Any
    ) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(host, timeout=timeout, context=self._tls)
        if (connection.host, connection.port) == (self._named.host, self._named.port):
            target = self._named.target
            # What it takes to connect elsewhere; the certificate is still checked for its host.
            connection._create_connection = (  # type: ignore[attr-defined]
                lambda _address, *arguments: socket.create_connection(target, *arguments)
            )
        return connection


def _resources(place: str, untrusted: bytes) -> Iterator[Resource]:
    try:
        root = defusedxml.ElementTree.fromstring(untrusted)
    except (DefusedXmlException, SyntaxError, ValueError):
        raise NoDav("its answer is not XML") from None
    if root.tag != f"{DAV}multistatus":
        raise NoDav("its answer is not a multistatus")
    for response in root.iter(f"{DAV}response"):
        href = (response.findtext(f"{DAV}href") or "").strip()
        properties = [
            element
            for status in response.iter(f"{DAV}propstat")
            if " 200 " in f"{status.findtext(f'{DAV}status') or ''} "
            for prop in status.iter(f"{DAV}prop")
            for element in prop
        ]
        if href:
            yield _resource(urljoin(place, href), place, properties)


def _resource(url: str, place: str, properties: list[Any]) -> Resource:
    known = {element.tag: element for element in properties}

    def hrefs(tag: str) -> tuple[str, ...]:
        found = known[tag].iter(f"{DAV}href") if tag in known else ()
        return tuple(urljoin(place, (each.text or "").strip()) for each in found if each.text)

    def children(tag: str) -> Iterator[Any]:
        return iter(known[tag]) if tag in known else iter(())

    name = known[f"{DAV}displayname"].text if f"{DAV}displayname" in known else ""
    components = children(f"{CALDAV}supported-calendar-component-set")
    return Resource(
        url=url,
        types=frozenset(each.tag for each in children(f"{DAV}resourcetype")),
        name=name or "",
        principal=next(iter(hrefs(f"{DAV}current-user-principal")), ""),
        homes={
            tag: hrefs(tag)
            for tag in (f"{CALDAV}calendar-home-set", f"{CARDDAV}addressbook-home-set")
        },
        components=frozenset(str(each.get("name", "")).upper() for each in components),
    )
