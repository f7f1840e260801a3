"""The commands on OpenPGP keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sandbox.cli.app import NAME, _verb_of, cli
from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan
from sandbox.lifecycle.house import Result
from sandbox.lifecycle.smime import NewCertificate
from sandbox.model.errors import Exit, MailboxError
from sandbox.state.activity import Activity


@cli.group()
def keys() -> None:
    """Look after a mailbox's OpenPGP keys: its own and its correspondents'."""


def on_keys(
    *decorators: Callable[[Any], Any],
) -> Callable[[Callable[..., Any]], click.Command]:
    """As `verb`, below `keys`."""
    return _verb_of(keys, decorators)


@on_keys(NAME)
def list_(printer: Printer, name: str) -> None:
    """List a mailbox's own key and its correspondents', with what is wrong with them."""
    from sandbox.lifecycle.keys import list_keys, warn_of_keys

    house = compose(printer)
    listed = list_keys(house, name)
    if printer.as_json:
        printer.document([asdict(each) for each in listed])
        return
    rows = [
        (each.role, each.fingerprint, ", ".join(each.addresses), _day(each.expires))
        for each in listed
    ]
    printer.table(("WHOSE", "FINGERPRINT", "ADDRESSES", "EXPIRES"), rows)
    warn_of_keys(house, listed)


def _day(moment: int | None) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat() if moment else "never"


@on_keys(NAME, click.argument("fingerprint"), DRY_RUN)
def remove(printer: Printer, name: str, fingerprint: str, dry_run: bool) -> None:
    """Accept a correspondent's key no longer."""
    from sandbox.lifecycle.keys import remove as remove_key
    from sandbox.model.names import parse_fingerprint

    try:
        parsed = parse_fingerprint(fingerprint)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.removing_key(compose(printer), name, parsed))
        return
    printer.result(remove_key(compose(printer), name, parsed))


@on_keys(
    NAME,
    click.argument("folder", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path)),
)
def publish(printer: Printer, name: str, folder: Path) -> None:
    """Write the mailbox's public key into a folder to upload (Web Key Directory).

    Correspondents' mail programs then find the key by the address. FOLDER gets a tree
    `.well-known/openpgpkey`, which belongs at the root of https://openpgpkey.DOMAIN or of
    https://DOMAIN.
    """
    from sandbox.lifecycle.publish import publish as publish_key

    printer.result(publish_key(compose(printer), name, folder))


@on_keys(NAME)
def check(printer: Printer, name: str) -> int:
    """Prove in the open machine which keys its mail client can use.

    It signs and encrypts a mail with each key and reads it again, by the means that it uses for
    real ones; nothing is sent. The report is the machine's own.
    """
    from sandbox.lifecycle.keycheck import check_keys

    proven = check_keys(compose(printer), name)
    failed = [each for each in proven if each.problem]
    if printer.as_json:
        printer.document([asdict(each) for each in proven])
    else:
        rows = [
            (each.role, each.fingerprint, ", ".join(each.addresses), each.problem or "serves")
            for each in proven
        ]
        printer.table(("WHOSE", "FINGERPRINT", "ADDRESSES", "RESULT"), rows)
    return Exit.KEYS if failed else Exit.OK


@on_keys(NAME)
def activity(printer: Printer, name: str) -> None:
    """Show what a machine used a key on this computer for, and what it was refused."""
    house = compose(printer)
    known = house.records.load(name).name
    uses = Activity(house.paths.activity(known)).read()
    if printer.as_json:
        printer.document([asdict(use) for use in uses])
        return
    if not uses:
        printer.line(f"No machine of {known} has used a key on this computer.")
        return
    rows = [
        (use.time[:19].replace("T", " "), use.operation, use.what, use.outcome, str(use.count))
        for use in uses
    ]
    printer.table(("TIME (UTC)", "OPERATION", "KEYGRIP OR REQUEST", "OUTCOME", "TIMES"), rows)


@on_keys(
    NAME,
    click.option(
        "--minutes",
        type=click.IntRange(1, 1440),
        default=10,
        show_default=True,
        help="For how long.",
    ),
)
def allow(printer: Printer, name: str, minutes: int) -> None:
    """Allow an open mailbox to use its key on this computer for a while, without questions."""
    house = compose(printer)
    known = house.records.load(name).name
    if not house.custodians.allow(house.paths.custody_socket(known), 60.0 * minutes):
        raise MailboxError(
            f"{known} holds no key open on this computer; nothing was allowed.",
            resolution=f"`mailbox open {known}` first; `[keys] custody` in its profile says where.",
            code="custody-closed",
            exit_code=Exit.MACHINE,
        )
    summary = f"{known} may use its key for {minutes} minutes."
    printer.result(Result("keys allow", known, summary, {"minutes": minutes}))


@on_keys(
    NAME,
    click.argument("file", metavar="[FILE]", required=False),
    click.option("--remove", "removing", is_flag=True, help="Destroy the certificate instead."),
    click.option(
        "--passphrase-fd",
        type=int,
        metavar="N",
        help="Read the file's passphrase from descriptor N instead of asking with pinentry.",
    ),
    click.option(
        "--ca", metavar="FILE", help="Authorities (PEM) to trust for S/MIME in this mailbox."
    ),
    DRY_RUN,
)
def smime(
    printer: Printer,
    name: str,
    file: str | None,
    removing: bool,
    passphrase_fd: int | None,
    ca: str | None,
    dry_run: bool,
) -> None:
    """Take an S/MIME certificate with its private key from a PKCS#12 file (.p12, .pfx).

    The mail client signs with it and reads what is encrypted to it. It replaces one that is there.
    """
    from sandbox.lifecycle import smime as lifecycle

    if bool(file) == removing:
        raise click.UsageError("Name a FILE, or say --remove.")
    house = compose(printer)
    new = None if file is None else _new_certificate(file, ca, passphrase_fd)
    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.changing_certificate(house, name, new))
        return
    printer.result(lifecycle.take(house, name, new) if new else lifecycle.remove(house, name))


def _new_certificate(file: str, ca: str | None, descriptor: int | None) -> NewCertificate:
    from sandbox.cli.onboarding import authorities_in, passphrase_source, read_file

    content = read_file("FILE", file) or b""
    ask = passphrase_source(descriptor, "Passphrase of")
    return NewCertificate(content, ask, authorities_in("--ca", read_file("--ca", ca)))
