"""The autoconfiguration document of mail clients: read from a stranger, over HTTPS only.

Format: https://datatracker.ietf.org/doc/draft-ietf-mailmaint-autoconfig/. Parsed by defusedxml,
which refuses document types and entities (the standard parser expands them).
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from enum import StrEnum
from typing import IO, Protocol

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from sandbox.host.servercert import one_line
from sandbox.model.endpoints import Endpoint, Security, host_problem, port_problem

MAX_DOCUMENT = 256 * 1024
MAX_REDIRECTS = 3
CALL_TIMEOUT_S = 5.0

_PLACEHOLDER = re.compile("%(EMAILADDRESS|EMAILLOCALPART|EMAILDOMAIN)%")


class LookupFailedError(Exception):
    """A document or a record could not be had; the text is for the user."""


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


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """A few redirects, and none that leaves HTTPS."""

    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            raise LookupFailedError("it redirects to an unprotected address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """Without the handlers for file:, ftp: and http: that `build_opener` would add."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.UnknownHandler(),  # says so for every other scheme
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _HttpsRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def fetch_https(url: str, context: ssl.SSLContext | None = None) -> bytes:
    """A small document over HTTPS.

    Raises:
        LookupFailedError: with the reason.
    """
    opener = _opener(context or ssl.create_default_context())
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked by the opener
        url, headers={"Accept": "application/xml, text/xml", "User-Agent": "mailbox"}
    )
    try:
        with opener.open(request, timeout=CALL_TIMEOUT_S) as reply:
            untrusted_body: bytes = reply.read(MAX_DOCUMENT + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise LookupFailedError(f"it answers {error.code}") from None
    except urllib.error.URLError as error:
        raise LookupFailedError(_network_reason(error.reason)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LookupFailedError(_network_reason(error)) from None
    if len(untrusted_body) > MAX_DOCUMENT:
        raise LookupFailedError(f"the document is larger than {MAX_DOCUMENT // 1024} KiB")
    return untrusted_body


def _network_reason(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, http.client.HTTPException):
        return "it does not speak HTTP as it should"
    return one_line(str(error), 100)
