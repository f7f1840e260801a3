"""Logging in to a mail server with a password, without the password ever coming back in a text."""

from __future__ import annotations

import base64
import imaplib
import smtplib
from dataclasses import dataclass, field

from sandbox.host.servercert import one_line
from sandbox.model.errors import InvalidInputError


@dataclass(frozen=True)
class Login:
    """A name and its password."""

    name: str
    password: str = field(repr=False)

    def plain(self) -> bytes:
        """The message of SASL PLAIN (RFC 4616)."""
        return f"\0{self.name}\0{self.password}".encode()

    def told_by(self, untrusted_text: str) -> str:
        """A server's text for a message, unless it repeats the password in some form."""
        word = self.password.encode()
        forms = (self.plain(), word)
        secrets = {self.password, *(base64.b64encode(form).decode() for form in forms)}
        if any(secret and secret in untrusted_text for secret in secrets):
            return ""
        return one_line(untrusted_text)


class Refused(Exception):  # noqa: N818 - a server's answer
    """The server did not take the login; carries only text that may be shown."""


class OnlyOAuth(Exception):  # noqa: N818 - a server's answer
    """The server takes no passwords."""


def checked(name: str, password: str) -> Login:
    """A login that can be sent: control characters would be commands to some servers.

    Raises:
        InvalidInputError: naming what has them.
    """
    parts = {"the login name": name, "the password": password}
    problems = [
        f"{what} contains control characters or is no valid UTF-8"
        for what, text in parts.items()
        if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in text)
    ]
    if problems:
        raise InvalidInputError("The login", problems)
    return Login(name, password)


def log_in_imap(imap: imaplib.IMAP4, login: Login) -> None:
    """Log in, with SASL PLAIN where it is offered (it takes UTF-8, LOGIN does not)."""
    offered = set(imap.capabilities)
    try:
        if "AUTH=PLAIN" in offered:
            imap.authenticate("PLAIN", lambda _challenge: login.plain())
        elif "LOGINDISABLED" not in offered:
            imap.login(_quoted(login.name), login.password)
        elif offered & {"AUTH=XOAUTH2", "AUTH=OAUTHBEARER"}:
            raise OnlyOAuth
        else:
            raise Refused("it offers no login with a password")
    except UnicodeError:  # its text would hold the password
        raise Refused("it takes only ASCII characters in login and password") from None
    except imaplib.IMAP4.abort:
        raise
    except imaplib.IMAP4.error as error:
        raise Refused(login.told_by(server_text(error))) from None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def server_text(error: Exception) -> str:
    """imaplib gives the server's text as bytes in the first argument."""
    first = error.args[0] if error.args else ""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def log_in_smtp(smtp: smtplib.SMTP, login: Login) -> None:
    """Log in; nothing is sent."""
    offered = set(smtp.esmtp_features.get("auth", "").upper().split())
    if "PLAIN" in offered:
        code, text = smtp.docmd("AUTH", "PLAIN " + _base64(login.plain()))
    elif "LOGIN" in offered:
        code, text = smtp.docmd("AUTH", "LOGIN")
        for word in (login.name, login.password):
            if code == 334:
                code, text = smtp.docmd(_base64(word.encode()))
    elif offered & {"XOAUTH2", "OAUTHBEARER"}:
        raise OnlyOAuth
    else:
        raise Refused("it offers no login with a password")
    if code != 235:
        raise Refused(login.told_by(f"{code} {text.decode(errors='replace')}"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
