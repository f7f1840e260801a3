"""Servers found from an address, shown and confirmed."""

from __future__ import annotations

from collections.abc import Callable

import click

from sandbox.cli.answers import Answers
from sandbox.cli.output import Printer
from sandbox.model.endpoints import Endpoint
from sandbox.model.errors import Exit, MailboxError


def discoverer(printer: Printer, *, interactive: bool, yes: bool) -> Callable[[str], Answers]:
    """A function from an address to the servers the user agrees to."""

    def discover(address: str) -> Answers:
        from sandbox.host import discovery

        printer.step(f"Looking for the mail servers of {address.rpartition('@')[2]}")
        try:
            found = discovery.discover(address)
        except MailboxError as error:
            if not interactive:
                raise
            printer.note(f"{error.brief} You can name them now.")
            return Answers()
        printer.note(f"Found at {found.source}:")
        printer.note(f"  IMAP {found.imap}, SMTP {found.smtp}, login {found.login}")
        if found.doubt:
            printer.warn(found.doubt)
        if not yes and not (interactive and click.confirm("Use them?", default=True, err=True)):
            if interactive:
                return Answers()
            raise MailboxError(
                "The servers that were found need your word; nothing was written.",
                resolution="Say --yes, or name them with --imap and --smtp.",
                code="servers-not-confirmed",
                exit_code=Exit.USAGE,
            )
        return Answers(imap=_said(found.imap), smtp=_said(found.smtp), login=found.login)

    return discover


def _said(endpoint: Endpoint) -> str:
    """The endpoint as a person would name it, its transport security included."""
    return f"{endpoint}/{endpoint.security}"
