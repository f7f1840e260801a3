"""Where correspondents' keys are looked up, by this computer and never by a machine."""

from __future__ import annotations

import socket
import urllib.parse
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sandbox.host.https import LookupFailedError, NotThereError, Request, fetch_https
from sandbox.host.mailfetch import fetch as fetch_mail
from sandbox.host.servercert import context_for
from sandbox.host.sidebyside import NoAnswerError, side_by_side
from sandbox.model import wkd
from sandbox.model.endpoints import host_problem, port_problem
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.offers import Way

__all__ = ["fetch_mail", "key_server", "web_key"]

T = TypeVar("T")

DEADLINE_S = 20.0
# One key with its own signatures is a few KiB; a key server may answer with several.
MAX_KEY = 1024 * 1024
MAX_ANSWER = 4 * 1024 * 1024
_ACCEPT = "application/octet-stream, application/pgp-keys, */*"


def web_key(address: str, way: Way) -> tuple[str, bytes]:
    """The place and the content of an address's key in its domain's Web Key Directory.

    Source: draft-koch-openpgp-webkey-service, section 3.1.

    Raises:
        MailboxError: `key-not-found`, `key-lookup-failed`.
    """
    return _in_time(
        f"The Web Key Directory of {address.rpartition('@')[2]}",
        address,
        partial(_wkd, address, way),
    )


def _wkd(address: str, way: Way) -> tuple[str, bytes]:
    host, url = wkd.advanced(address)
    # Only the absence of that name allows the other place: a failure may be an attacker's.
    if (host, 443) not in way.detours and not _exists(host):
        url = wkd.direct(address)
    return url.partition("?")[0], _fetch(url, MAX_KEY, way)


def _exists(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return False
        raise LookupFailedError("the name service does not answer") from None
    except UnicodeError:
        return False
    return True


def key_server(server: str, wanted: str, way: Way) -> tuple[str, bytes]:
    """The place and the answer of a key server (HKP over TLS) for an address or a fingerprint.

    Raises:
        InvalidInputError: `server` names no such server.
        MailboxError: `key-not-found`, `key-lookup-failed`.
    """
    host, port = parse_key_server(server)
    place = host if port == 443 else f"{host}:{port}"
    search = wanted if "@" in wanted else f"0x{wanted}"
    query = urllib.parse.urlencode({"op": "get", "options": "mr", "search": search})
    fetch = partial(_fetch, f"https://{place}/pks/lookup?{query}", MAX_ANSWER, way)
    return f"hkps://{place}", _in_time(f"The key server {place}", wanted, fetch)


def parse_key_server(text: str) -> tuple[str, int]:
    """Host and port of `hkps://HOST[:PORT]` or `https://…`.

    Raises:
        InvalidInputError: when it is something else, such as a server without protection.
    """
    said = text if "://" in text else f"hkps://{text}"
    try:
        parts = urllib.parse.urlsplit(said)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        host, port, parts = "", 443, urllib.parse.urlsplit("")
    rest = parts.path.strip("/") or parts.query or parts.username or parts.password
    if parts.scheme not in ("hkps", "https") or rest or host_problem(host) or port_problem(port):
        problem = f"--keyserver: {text!r} is not hkps://HOST[:PORT]; one without TLS is not asked"
        raise InvalidInputError("The input", [problem])
    return host.encode("idna").decode("ascii"), port


def _fetch(url: str, limit: int, way: Way) -> bytes:
    context = context_for(way.ca)
    return fetch_https(Request(url, _ACCEPT, limit, way.detours), context)


def _in_time(who: str, wanted: str, fetch: Callable[[], T]) -> T:
    """One call with a deadline that no slow answer moves, and errors for people."""
    (answer,) = side_by_side([fetch], DEADLINE_S)
    match answer:
        case MailboxError():
            raise answer
        case NotThereError():
            raise _not_there(who, wanted)
        case LookupFailedError() | NoAnswerError():
            raise _failed(who, str(answer) or f"no answer within {DEADLINE_S:g} s")
        case Exception():
            raise _failed(who, type(answer).__name__)
    return answer


def _not_there(who: str, wanted: str) -> MailboxError:
    return MailboxError(
        f"{who} has no key for {wanted}; nothing was accepted.",
        resolution="Ask the correspondent for the key as a file, or name a key server with "
        "--keyserver.",
        code="key-not-found",
        exit_code=Exit.KEYS,
    )


def _failed(who: str, reason: str) -> MailboxError:
    return MailboxError(
        f"{who} could not be asked: {reason}. Nothing was accepted.",
        resolution="Try again later, or ask the correspondent for the key as a file.",
        code="key-lookup-failed",
        exit_code=Exit.SERVER,
    )
