"""Small documents of strangers, fetched over HTTPS and never over anything else."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from typing import IO, Any

from sandbox.host.servercert import context_for, one_line

MAX_DOCUMENT = 256 * 1024
MAX_REDIRECTS = 3
CALL_TIMEOUT_S = 5.0

Place = tuple[str, int]


class LookupFailedError(Exception):
    """A document or a record could not be had; the text is for the user."""


class NotThereError(LookupFailedError):
    """The server answers, and says that it has no such document."""


@dataclass(frozen=True)
class Request:
    """What is fetched: how large it may be, and where a server is really reached."""

    url: str
    accept: str = "application/xml, text/xml"
    limit: int = MAX_DOCUMENT
    detours: Mapping[Place, Place] = field(default_factory=dict)


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


class _Connection(http.client.HTTPSConnection):
    """Protected for the name that was asked for, wherever that leads."""

    def __init__(self, *args: Any, detours: Mapping[Place, Place], **options: Any) -> None:
        self._detours = detours
        self._protect: ssl.SSLContext = options["context"]
        super().__init__(*args, **options)

    def connect(self) -> None:
        place = self._detours.get((self.host, self.port))
        if place is None:
            super().connect()
            return
        plain = socket.create_connection(place, self.timeout)
        try:
            self.sock = self._protect.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext, detours: Mapping[Place, Place]) -> None:
        super().__init__(context=context)
        self._protect = context
        self._detours = detours

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection = partial(_Connection, detours=self._detours)
        return self.do_open(connection, req, context=self._protect)


def _opener(
    context: ssl.SSLContext, detours: Mapping[Place, Place]
) -> urllib.request.OpenerDirector:
    """Without the handlers for file:, ftp: and http: that `build_opener` would add."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _HttpsHandler(context, detours),
        urllib.request.UnknownHandler(),  # says so for every other scheme
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _HttpsRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def fetch_https(wanted: str | Request, context: ssl.SSLContext | None = None) -> bytes:
    """A small document over HTTPS.

    Raises:
        LookupFailedError: with the reason.
    """
    wanted = Request(wanted) if isinstance(wanted, str) else wanted
    opener = _opener(context or context_for(None), wanted.detours)
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked by the opener
        wanted.url, headers={"Accept": wanted.accept, "User-Agent": "mailbox"}
    )
    try:
        with opener.open(request, timeout=CALL_TIMEOUT_S) as reply:
            untrusted_body: bytes = reply.read(wanted.limit + 1)
    except urllib.error.HTTPError as error:
        error.close()
        kind = NotThereError if error.code in (404, 410) else LookupFailedError
        raise kind(f"it answers {error.code}") from None
    except urllib.error.URLError as error:
        raise LookupFailedError(_network_reason(error.reason)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LookupFailedError(_network_reason(error)) from None
    if len(untrusted_body) > wanted.limit:
        raise LookupFailedError(f"the document is larger than {wanted.limit // 1024} KiB")
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
