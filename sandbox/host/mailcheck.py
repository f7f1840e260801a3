"""Checks login and certificate against the real servers, before anything is written.

Both servers are asked side by side, so that one run tells everything that is wrong. No mail is
read or sent. The password goes to a server only after its certificate was verified, and never
into a message: servers' texts that repeat it are dropped.
"""

from __future__ import annotations

import imaplib
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from sandbox.host.maillogin import (
    Login,
    OnlyOAuth,
    Refused,
    checked,
    log_in_imap,
    log_in_smtp,
    server_text,
)
from sandbox.host.servercert import (
    CertificateFacts,
    certificate_error,
    context_for,
    context_to_look,
    one_line,
    read_certificate,
)
from sandbox.host.sidebyside import NoAnswerError, side_by_side
from sandbox.model.endpoints import Endpoint, Security
from sandbox.model.errors import Exit, MailboxError

TIMEOUT_S = 20.0
# said to the server instead of this computer's name, as Thunderbird does
_EHLO_NAME = "[127.0.0.1]"
_UNPROTECTED = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


@dataclass(frozen=True)
class ServerCheck:
    """A server that answered, showed a trusted certificate and took the login."""

    server: str
    security: str
    certificate: CertificateFacts


@dataclass(frozen=True)
class MailCheck:
    """Both servers of an account, checked."""

    imap: ServerCheck
    smtp: ServerCheck


class NoTls(Exception):  # noqa: N818 - a server's answer
    """The server offers no STARTTLS."""


def check(
    imap: Endpoint,
    smtp: Endpoint,
    login: str,
    password: str,
    ca_pem: str | None,
    timeout_s: float = TIMEOUT_S,
) -> MailCheck:
    """Log in to both servers.

    Raises:
        MailboxError: `server-unreachable`, `server-name-unknown`, `no-tls`, `login-refused`,
            `oauth2-only`, `certificate-not-trusted`, `certificate-expired`,
            `certificate-name-mismatch`, `ca-invalid` or `invalid-input`; of two errors the code
            is the first's.
    """
    context = context_for(ca_pem)
    account = checked(login, password)
    endpoints = (ascii_endpoint(imap), ascii_endpoint(smtp))
    answers = side_by_side(
        [
            partial(_check_one, visit, endpoint, context, account, timeout_s)
            for visit, endpoint in zip((_visit_imap, _visit_smtp), endpoints, strict=True)
        ],
        timeout_s,
    )
    errors = [
        explain(endpoint, answer, account, timeout_s)
        for endpoint, answer in zip(endpoints, answers, strict=True)
        if isinstance(answer, Exception)
    ]
    if errors:
        raise together(errors) from None
    found = [answer for answer in answers if isinstance(answer, ServerCheck)]
    return MailCheck(*found)


def ascii_endpoint(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, host=endpoint.host.encode("idna").decode("ascii"))


_Visit = Callable[[Endpoint, ssl.SSLContext, Login | None, float], CertificateFacts]


def _check_one(
    visit: _Visit,
    endpoint: Endpoint,
    context: ssl.SSLContext,
    login: Login,
    timeout_s: float,
) -> ServerCheck:
    try:
        facts = visit(endpoint, context, login, timeout_s)
    except ssl.SSLCertVerificationError as error:
        raise certificate_error(endpoint, error, _look(visit, endpoint, timeout_s)) from None
    return ServerCheck(str(endpoint), str(endpoint.security), facts)


def _look(visit: _Visit, endpoint: Endpoint, timeout_s: float) -> CertificateFacts | None:
    """A refused certificate, to show it; nothing is sent on that connection."""
    try:
        return visit(endpoint, context_to_look(), None, timeout_s)
    except (OSError, imaplib.IMAP4.error, smtplib.SMTPException, NoTls):
        return None


def _facts(sock: object) -> CertificateFacts:
    if not isinstance(sock, ssl.SSLSocket):
        raise NoTls
    return read_certificate(sock.getpeercert(binary_form=True) or b"", sock.version())


def _connect(endpoint: Endpoint, context: ssl.SSLContext, timeout: float | None) -> socket.socket:
    """A connection to where the endpoint really is, protected for the name that it has."""
    plain = socket.create_connection(endpoint.target, timeout)
    if endpoint.security is Security.STARTTLS:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=endpoint.host)
    except BaseException:
        plain.close()
        raise


# --- IMAP -----------------------------------------------------------------------------------


class Imap(imaplib.IMAP4):
    """IMAP whose connection goes through `_connect`."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, timeout: float) -> None:
        self._endpoint = endpoint
        self._context = context
        super().__init__(endpoint.host, endpoint.port, timeout)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return _connect(self._endpoint, self._context, timeout)


def _visit_imap(
    endpoint: Endpoint, context: ssl.SSLContext, login: Login | None, timeout_s: float
) -> CertificateFacts:
    imap = Imap(endpoint, context, timeout_s)
    try:
        if endpoint.security is Security.STARTTLS:
            if "STARTTLS" not in imap.capabilities:
                raise NoTls
            imap.starttls(context)
        facts = _facts(imap.sock)
        if login is not None:
            log_in_imap(imap, login)
        return facts
    finally:
        with suppress(OSError, ValueError, imaplib.IMAP4.error):
            imap.logout()


# --- SMTP -----------------------------------------------------------------------------------


class _Smtp(smtplib.SMTP):
    """SMTP whose connection goes through `_connect`."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, timeout: float) -> None:
        self._endpoint = endpoint
        self._context = context
        super().__init__(endpoint.host, endpoint.port, local_hostname=_EHLO_NAME, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return _connect(self._endpoint, self._context, timeout)


def _visit_smtp(
    endpoint: Endpoint, context: ssl.SSLContext, login: Login | None, timeout_s: float
) -> CertificateFacts:
    smtp = _Smtp(endpoint, context, timeout_s)
    try:
        smtp.ehlo_or_helo_if_needed()
        if endpoint.security is Security.STARTTLS:
            if not smtp.has_extn("starttls"):
                raise NoTls
            smtp.starttls(context=context)
            smtp.ehlo()
        facts = _facts(smtp.sock)
        if login is not None:
            log_in_smtp(smtp, login)
        return facts
    finally:
        with suppress(OSError, smtplib.SMTPException):
            smtp.quit()


# --- what went wrong ------------------------------------------------------------------------


def explain(endpoint: Endpoint, error: Exception, login: Login, timeout_s: float) -> MailboxError:
    """One sentence for every way in which a server can fail."""
    match error:
        case MailboxError():
            return error
        case Refused():
            return _login_refused(endpoint, login.name, str(error))
        case OnlyOAuth():
            return _only_oauth(endpoint)
        case NoTls():
            return _no_tls(endpoint)
        case socket.gaierror() if error.errno != socket.EAI_AGAIN:
            return _name_unknown(endpoint)
        case TimeoutError() | NoAnswerError():
            return _unreachable(endpoint, f"no answer within {timeout_s:g} s")
        case ssl.SSLError() if error.reason in _UNPROTECTED:
            return _no_tls(endpoint)
        case OSError():
            return _unreachable(endpoint, error.strerror or login.told_by(str(error)))
        case _:  # a server that speaks the protocol wrongly; its text may repeat anything
            return _unreachable(endpoint, login.told_by(server_text(error)) or type(error).__name__)


def _server_error(code: str, brief: str, details: str = "", resolution: str = "") -> MailboxError:
    return MailboxError(
        brief, details=details, resolution=resolution, code=code, exit_code=Exit.SERVER
    )


def _where(endpoint: Endpoint) -> str:
    if endpoint.connect is None:
        return str(endpoint)
    return f"{endpoint} (connecting to {endpoint.connect[0]}:{endpoint.connect[1]})"


def _unreachable(endpoint: Endpoint, reason: str) -> MailboxError:
    return _server_error(
        "server-unreachable",
        f"The server {_where(endpoint)} cannot be reached: {reason}.",
        resolution="Check host, port and network; a wrong choice between TLS (993, 465) and "
        "STARTTLS (143, 587) looks the same.",
    )


def _name_unknown(endpoint: Endpoint) -> MailboxError:
    return _server_error(
        "server-name-unknown",
        f"There is no server named {endpoint.target[0]}.",
        resolution="Check the name for a typing error.",
    )


def _no_tls(endpoint: Endpoint) -> MailboxError:
    wanted = "TLS" if endpoint.security is Security.TLS else "STARTTLS"
    other = "STARTTLS on 143 or 587" if wanted == "TLS" else "TLS on 993 or 465"
    return _server_error(
        "no-tls",
        f"The server {_where(endpoint)} does not offer {wanted}; nothing was sent to it.",
        resolution=f"Try {other}; a connection without protection is never used.",
    )


def _login_refused(endpoint: Endpoint, login: str, text: str) -> MailboxError:
    return _server_error(
        "login-refused",
        f"The server {endpoint} refused the login of {one_line(login)}.",
        details=f"It says: {text}" if text else "",
        resolution="Check login and password; some providers want an app password.",
    )


def _only_oauth(endpoint: Endpoint) -> MailboxError:
    return _server_error(
        "oauth2-only",
        f"The server {endpoint} takes no passwords, only OAuth2.",
        resolution="Ask the provider for an app password or for access with a password.",
    )


def together(errors: list[MailboxError]) -> MailboxError:
    """All errors as one; its code is the first's."""
    first = errors[0]
    if len(errors) == 1:
        return first
    return MailboxError(
        " ".join(error.brief for error in errors),
        details="\n".join(error.details for error in errors if error.details),
        resolution=" ".join(dict.fromkeys(e.resolution for e in errors if e.resolution)),
        code=first.code,
        exit_code=first.exit_code,
    )
