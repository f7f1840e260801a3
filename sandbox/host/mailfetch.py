"""One mail of the customer's server, by its Message-ID, for the keys that it carries.

Nothing is changed there: mailboxes are opened read-only, and the mail does not count as read.
"""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from sandbox.host.mailcheck import Imap, NoTls, ascii_endpoint, explain
from sandbox.host.maillogin import Login, checked, log_in_imap
from sandbox.host.servercert import certificate_error, context_for
from sandbox.host.sidebyside import side_by_side
from sandbox.model.endpoints import Endpoint, Security
from sandbox.model.errors import Exit, InvalidInputError, MailboxError

TIMEOUT_S = 60.0
MAX_MAIL = 32 * 1024 * 1024
_MOST_FOLDERS = 500
# Nothing that would need quoting, or end the command.
_MESSAGE_ID = re.compile(r"<?([A-Za-z0-9!#$%&'*+/=?^_`{|}~.@:\[\]-]{1,250})>?\Z")
_LISTED = re.compile(
    rb'\((?P<flags>[^)]*)\) (?:"(?:[^"\\]|\\.)*"|NIL) (?P<name>"[^\r\n]*"|[^\r\n "]+)\Z'
)


class _NotThereError(Exception):
    """No folder has such a mail."""


class _BoundedImap(Imap):
    """A server cannot make us take more than a mail may have."""

    def read(self, size: int) -> bytes:
        if size > MAX_MAIL:
            raise imaplib.IMAP4.abort(f"the mail is larger than {MAX_MAIL >> 20} MiB")
        return super().read(size)


def fetch(
    endpoint: Endpoint, login: str, password: str, ca_pem: str | None, message_id: str
) -> bytes:
    """The whole mail, as the server has it.

    Raises:
        InvalidInputError: `message_id` is none.
        MailboxError: `mail-not-found`, and those of `mailcheck.check`.
    """
    wanted, account = parse_message_id(message_id), checked(login, password)
    at, context = ascii_endpoint(endpoint), context_for(ca_pem)
    (answer,) = side_by_side([partial(_fetch, at, context, account, wanted)], TIMEOUT_S)
    if isinstance(answer, _NotThereError):
        raise _mail_not_found(wanted)
    if isinstance(answer, Exception):
        raise explain(at, answer, account, TIMEOUT_S) from None
    return answer


def parse_message_id(text: str) -> str:
    """A Message-ID with its brackets.

    Raises:
        InvalidInputError: when it has characters that no Message-ID needs.
    """
    found = _MESSAGE_ID.match(text.strip())
    if not found or "@" not in found[1]:
        problem = f"--from-mail: {text!r} is not a Message-ID such as <abc@mail.example>"
        raise InvalidInputError("The input", [problem])
    return f"<{found[1]}>"


def _fetch(endpoint: Endpoint, context: ssl.SSLContext, login: Login, wanted: str) -> bytes:
    try:
        imap = _BoundedImap(endpoint, context, TIMEOUT_S)
    except ssl.SSLCertVerificationError as error:
        raise certificate_error(endpoint, error, None) from None
    try:
        if endpoint.security is Security.STARTTLS:
            if "STARTTLS" not in imap.capabilities:
                raise NoTls
            imap.starttls(context)
        log_in_imap(imap, login)
        return _find(imap, wanted)
    finally:
        with suppress(OSError, ValueError, imaplib.IMAP4.error):
            imap.logout()


def _find(imap: imaplib.IMAP4, wanted: str) -> bytes:
    for folder in _folders(imap):
        with suppress(imaplib.IMAP4.readonly):
            if imap.select(folder, readonly=True)[0] != "OK":
                continue
        _, found = imap.uid("SEARCH", "HEADER", "Message-ID", f'"{wanted}"')
        numbers = found[0].split() if found and isinstance(found[0], bytes) else []
        if numbers and numbers[-1].isdigit():
            return _take(imap, numbers[-1].decode())
    raise _NotThereError


def _folders(imap: imaplib.IMAP4) -> Iterator[str]:
    """The inbox first, then whatever else can be opened."""
    yield "INBOX"
    _, listed = imap.list()
    for line in listed[:_MOST_FOLDERS]:
        found = _LISTED.match(line) if isinstance(line, bytes) else None
        if found and b"\\noselect" not in found["flags"].lower():
            name = found["name"].decode("ascii", errors="replace")
            if name.strip('"').upper() != "INBOX":
                yield name


def _take(imap: imaplib.IMAP4, number: str) -> bytes:
    _, parts = imap.uid("FETCH", number, "(BODY.PEEK[])")
    for part in parts or []:
        if isinstance(part, tuple) and isinstance(part[1], bytes):
            return part[1]
    raise _NotThereError


def _mail_not_found(wanted: str) -> MailboxError:
    return MailboxError(
        f"No mail {wanted} is on the server; nothing was accepted.",
        resolution="Copy the Message-ID from the mail's source, or save the mail to a file and "
        "name that.",
        code="mail-not-found",
        exit_code=Exit.NOT_FOUND,
    )
