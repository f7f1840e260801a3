"""The autoconfiguration document of mail clients: read from a stranger, over HTTPS only.

Format: https://datatracker.ietf.org/doc/draft-ietf-mailmaint-autoconfig/. Parsed by defusedxml,
which refuses document types and entities (the standard parser expands them).
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from sandbox.host.https import LookupFailedError, fetch_https
from sandbox.model.endpoints import Endpoint, Security, host_problem, port_problem

__all__ = ["LookupFailedError", "fetch_https", "parse_clientconfig"]

_PLACEHOLDER = re.compile("%(EMAILADDRESS|EMAILLOCALPART|EMAILDOMAIN)%")


class Auth(StrEnum):
    """How a server wants to be logged in to."""

    PASSWORD = "password"  # noqa: S105 - a word, not a password
    OAUTH2 = "oauth2"


@dataclass(frozen=True)
class ServerGuess:
    """One server that a document names; only protected ones are taken."""

    protocol: str
    endpoint: Endpoint
    login: str
    auth: Auth


def document_urls(address: str, domain: str) -> list[str]:
    """Where a domain keeps its autoconfiguration document, HTTPS only."""
    query = urllib.parse.urlencode({"emailaddress": address})
    return [
        f"https://autoconfig.{domain}/mail/config-v1.1.xml?{query}",
        f"https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml",
    ]


def parse_clientconfig(document: bytes, address: str) -> list[ServerGuess]:
    """The protected IMAP and SMTP servers of a document, in its order.

    Raises:
        LookupFailedError: when it is no such document.
    """
    try:
        root = fromstring(document, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        # LookupError: an encoding that Python does not know
        raise LookupFailedError("the answer is no valid XML document") from None
    if root.tag != "clientConfig":
        raise LookupFailedError("the answer is no autoconfiguration document")
    servers = [
        (node, protocol)
        for kind, protocol in (("incomingServer", "imap"), ("outgoingServer", "smtp"))
        for node in root.iterfind(f"./emailProvider/{kind}")
        if node.get("type") == protocol
    ]
    guesses = (_guess(node, protocol, address) for node, protocol in servers)
    return [guess for guess in guesses if guess is not None]


class _Node(Protocol):
    """The little of an XML element that is read here."""

    def findtext(self, path: str, default: str) -> str: ...
    def iterfind(self, path: str) -> Iterator[_Node]: ...
    @property
    def text(self) -> str | None: ...


def _guess(node: _Node, protocol: str, address: str) -> ServerGuess | None:
    host = fill(node.findtext("hostname", ""), address).lower()
    port = node.findtext("port", "").strip()
    security = _security(node)
    auth = _auth(node)
    login = fill(node.findtext("username", "") or "%EMAILADDRESS%", address)
    if security is None or auth is None or host_problem(host) or not _is_plain(login):
        return None
    if not (port.isascii() and port.isdigit() and len(port) < 6) or port_problem(int(port)):
        return None
    ascii_host = host.encode("idna").decode("ascii")
    return ServerGuess(protocol, Endpoint(ascii_host, int(port), security), login, auth)


def fill(text: str, address: str) -> str:
    """A value with the placeholders of the format replaced, in one pass."""
    local, _, domain = address.rpartition("@")
    values = {"EMAILADDRESS": address, "EMAILLOCALPART": local, "EMAILDOMAIN": domain}
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text.strip())


def _texts(node: _Node, name: str) -> list[str]:
    return [(each.text or "").strip() for each in node.iterfind(name)]


def _security(node: _Node) -> Security | None:
    kinds = {"ssl": Security.TLS, "tls": Security.TLS, "starttls": Security.STARTTLS}
    found = [kinds[text.lower()] for text in _texts(node, "socketType") if text.lower() in kinds]
    return found[0] if found else None


def _auth(node: _Node) -> Auth | None:
    offered = {text.lower() for text in _texts(node, "authentication")}
    if offered & {"password-cleartext", "plain"}:
        return Auth.PASSWORD
    return Auth.OAUTH2 if "oauth2" in offered else None


def _is_plain(login: str) -> bool:
    return 0 < len(login) <= 256 and login.isprintable()
