"""`password`: the login has another password than before."""

from __future__ import annotations

import click

from sandbox.cli.app import NAME, verb
from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.cli.passwords import DAV_PASSWORD, take_changed
from sandbox.cli.plans import DRY_RUN, show_plan


@verb(
    NAME,
    click.option("--password-stdin", is_flag=True, help="Read the mail password from a pipe."),
    *DAV_PASSWORD,
    click.option("--offline", is_flag=True, help="Do not check the login with the servers."),
    DRY_RUN,
)
def password(
    printer: Printer,
    name: str,
    password_stdin: bool,
    dav_password_stdin: bool,
    dav_password_fd: int | None,
    offline: bool,
    dry_run: bool,
) -> None:
    """Store a mail password that was changed, once the servers take it; tell the mail client.

    Change it with the provider first. An open mailbox's mail client is given it at once, a closed
    one's at the next open. A suspended machine knows only the old one and is discarded. With
    --dav-password-stdin or --dav-password-fd alone only the calendars' own password is changed.

    \b
    mailbox password clientA
    mailbox password clientA --password-stdin < password
    """
    from sandbox.lifecycle.password import change, no_own_password

    house = compose(printer)
    profile = house.records.load(name)
    dav = dav_password_stdin or dav_password_fd is not None
    if dav and not profile.account.has_dav_password:
        raise no_own_password(profile.name)  # before anything is asked
    given = take_changed(profile.account, password_stdin, dav_password_stdin, dav_password_fd)
    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.changing_password(house, name, given))
        return
    if offline:
        printer.warn("Servers and login were not checked (--offline).")
    with printer.working():
        result = change(house, name, given, check=not offline)
    printer.result(result)
