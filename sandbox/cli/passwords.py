"""Where passwords come from: standard input, a descriptor, or a hidden prompt."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import click

from sandbox.model import secrets
from sandbox.model.errors import Exit, InvalidInputError, MailboxError

if TYPE_CHECKING:
    from sandbox.model.account import Account

DAV_PASSWORD = (
    click.option(
        "--dav-password-stdin",
        is_flag=True,
        help="Read the password of calendars and address books from a pipe, after the mail's.",
    ),
    click.option(
        "--dav-password-fd",
        type=int,
        metavar="N",
        help="Read that password from descriptor N (default: it is the mail password).",
    ),
)


def take_password(from_stdin: bool) -> str:
    """The mail password, from standard input or a hidden prompt."""
    if from_stdin:
        return _given(first_line(sys.stdin.buffer), "password")
    if sys.stdin.isatty():
        return _given(_prompted("Mail password"), "password")
    raise _missing("The mail password", "Give it on standard input with --password-stdin.")


def take_dav_password(from_stdin: bool, descriptor: int | None) -> str:
    """The password of calendars and address books, from where it was said or a hidden prompt."""
    what = "password of the calendars"
    if from_stdin and descriptor is not None:
        problem = "--dav-password-stdin, --dav-password-fd: only one of them"
        raise InvalidInputError("The input", [problem])
    if from_stdin:
        return _given(first_line(sys.stdin.buffer), what)
    if descriptor is not None:
        with os.fdopen(descriptor, "rb", closefd=False) as source:
            return _given(first_line(source), what)
    if sys.stdin.isatty():
        return _given(_prompted("Password of calendars and address books"), what)
    way = "Give it with --dav-password-stdin or --dav-password-fd."
    raise _missing("The password of calendars and address books", way)


def dav_password_source(from_stdin: bool, descriptor: int | None) -> Callable[[Account], str]:
    """How a new mailbox comes to that password; an empty one means the mail's."""

    def take(account: Account) -> str:
        given = from_stdin or descriptor is not None
        if given and not account.collections:
            problem = "--dav-password-stdin, --dav-password-fd: there is nothing that it opens"
            raise InvalidInputError("The input", [problem])
        if given:
            return take_dav_password(from_stdin, descriptor)
        if not account.collections or not sys.stdin.isatty():
            return ""
        return _prompted("Password of calendars and address books (nothing: the mail's)", "")

    return take


def take_changed(
    account: Account, from_stdin: bool, dav_from_stdin: bool, descriptor: int | None
) -> dict[str, str]:
    """The passwords to change, by their kind: those that were said, else the mail's is asked for.

    On a terminal the calendars' own is asked for after it; an empty answer leaves it as it is.
    """
    dav_given = dav_from_stdin or descriptor is not None
    given = {}
    if from_stdin or not dav_given:
        given[secrets.MAIL_PASSWORD] = take_password(from_stdin)
    if dav_given:
        given[secrets.DAV_PASSWORD] = take_dav_password(dav_from_stdin, descriptor)
    elif account.has_dav_password and not from_stdin:
        question = "Password of calendars and address books (nothing: as it is)"
        given |= {secrets.DAV_PASSWORD: word} if (word := _prompted(question, "")) else {}
    return given


def first_line(source: BinaryIO) -> str:
    """The first line of a stream, without its end."""
    try:
        return source.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidInputError("The input", ["password: is not text in UTF-8"]) from None


def _prompted(question: str, default: str | None = None) -> str:
    return str(
        click.prompt(question, default=default, hide_input=True, show_default=False, err=True)
    )


def _given(password: str, what: str) -> str:
    if not password:
        raise InvalidInputError("The input", [f"{what}: is empty"])
    return password


def _missing(what: str, way: str) -> MailboxError:
    return MailboxError(
        f"{what} was not given; nothing was written.",
        resolution=way,
        code="password-missing",
        exit_code=Exit.USAGE,
    )
