"""The commands that keep a mailbox from being locked out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sandbox.cli import onboarding as input_
from sandbox.cli.app import NAME, verb
from sandbox.cli.compose import compose
from sandbox.cli.handover import CODE_TO, recipient, take_code
from sandbox.cli.output import Printer
from sandbox.cli.passwords import take_dav_password, take_password
from sandbox.cli.plans import DRY_RUN, show_plan
from sandbox.cli.wishes import ACCOUNT, gather_wish
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.onboard import Adoption, KeyChoice, Wish
from sandbox.model.errors import Exit, InvalidInputError, MailboxError

if TYPE_CHECKING:
    from sandbox.lifecycle.recover import Means


@verb(
    NAME,
    CODE_TO,
    click.option("--replace", "replacing", is_flag=True, help="Kill the old code's keyslot."),
    DRY_RUN,
)
def recovery_code(
    printer: Printer, name: str, code_to: str | None, replacing: bool, dry_run: bool
) -> None:
    """Make a recovery code, or with --replace a new one; the mailbox must be closed.

    The new code is shown once, on the terminal. The old one opens nothing afterwards.
    """
    from sandbox.lifecycle.codes import renew_code

    house = compose(printer)
    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.renewing_code(house, name, replace=replacing))
        return
    hand_over = recipient(printer, name, code_to)
    with printer.working():
        result = renew_code(house, name, hand_over, replace=replacing)
    printer.result(result)


@verb(NAME, click.option("--remove", is_flag=True, help="Destroy the copy instead."), DRY_RUN)
def header_backup(printer: Printer, name: str, remove: bool, dry_run: bool) -> None:
    """Keep a copy of the volume's header beside the volume, for `repair`.

    A damaged header is the end of a volume. The copy is renewed when keyslots change, and destroyed
    by `shred`; a copy of yours that `mailbox` does not know of outlives both.
    """
    from sandbox.lifecycle.header import back_up

    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.backing_up(compose(printer), name, remove=remove))
        return
    with printer.working():
        result = back_up(compose(printer), name, remove=remove)
    printer.result(result)


@verb(
    NAME,
    click.option("--code-stdin", is_flag=True, help="Read the recovery code from a pipe."),
    click.option("--volume", metavar="FILE", help="The volume, on another computer than before."),
    click.option("--profile", "old", metavar="FILE", help="Its profile (TOML), if you have it."),
    click.option("--without-key", is_flag=True, help="Go on though the OpenPGP key is lost."),
    DRY_RUN,
    *ACCOUNT,
)
def recover(
    printer: Printer,
    name: str,
    code_stdin: bool,
    volume: str | None,
    old: str | None,
    without_key: bool,
    dry_run: bool,
    **said: Any,
) -> None:
    """Bring a mailbox back with its recovery code.

    Where only the keyring is lost, NAME is enough. On another computer, --volume names a copy of
    the volume, and --profile or the options of `onboard` say the rest; the copy is only read.

    \b
    mailbox recover clientA
    mailbox recover clientA --volume /media/stick/clientA.luks --profile /media/stick/clientA.toml
    """
    from sandbox.lifecycle import preview
    from sandbox.lifecycle.recover import recover as recover_mailbox

    house = compose(printer)
    exists = house.records.find(name) is not None
    if exists and (volume or old):
        problem = f"--volume, --profile: {name} is here already; they are for another computer"
        raise InvalidInputError("The input", [problem])
    if not exists and not volume:
        raise _nothing_here(house, name)
    code = take_code(code_stdin)
    if volume:
        wish = _adopting(printer, house, name, old, without_key, said)
        wish = replace(wish, adopt=Adoption(Path(volume).expanduser(), code))
        if dry_run:
            show_plan(printer, replace(preview.onboarding(house, wish), verb="recover"))
            return
        with printer.working():
            result = _adopt(house, wish)
    else:
        means = _means(printer, code, without_key, said)
        if dry_run:
            show_plan(printer, preview.recovering(house, name, means))
            return
        with printer.working():
            result = recover_mailbox(house, name, means)
    printer.result(result)


def _means(printer: Printer, code: str, without_key: bool, said: dict[str, Any]) -> Means:
    from sandbox.lifecycle.recover import Means

    file = input_.read_file("--key-file", said["key_file"])
    key = KeyChoice(file=file, ask=input_.passphrase_source(said["key_passphrase_fd"]))

    def password() -> str:
        with printer.paused():
            return take_password(said["password_stdin"])

    def dav_password() -> str:
        with printer.paused():
            return take_dav_password(said["dav_password_stdin"], said["dav_password_fd"])

    return Means(code, password, key, without_key, dav_password)


def _adopting(
    printer: Printer,
    house: House,
    name: str,
    old: str | None,
    without_key: bool,
    said: dict[str, Any],
) -> Wish:
    if old is None:
        return gather_wish(printer, house, name, reuse_name=False, **said)
    profile = house.records.parse(input_.read_file("--profile", old) or b"", f"The profile {old}")
    file = input_.read_file("--key-file", said["key_file"])
    known = None if file or without_key else profile.keys.fingerprint
    wanted = [each.fingerprint for each in profile.keys.correspondents]
    stdin, descriptor = said["dav_password_stdin"], said["dav_password_fd"]
    password = take_password(said["password_stdin"])
    own = profile.account.has_dav_password
    return Wish(
        name=name,
        template=profile.template,
        account=profile.account,
        settings=profile.settings,
        password=password,
        dav_password=take_dav_password(stdin, descriptor) if own else "",
        key=KeyChoice(known, file, ask=input_.passphrase_source(said["key_passphrase_fd"])),
        correspondents=tuple(each for each in wanted if _is_at_hand(printer, house, each)),
        accepted=profile.keys.correspondents,
        colour=profile.colour,
        check_servers=not said["offline"],
    )


def _is_at_hand(printer: Printer, house: House, fingerprint: str) -> bool:
    try:
        house.user_keyring.public(fingerprint)
    except MailboxError:
        printer.warn(
            f"Your GnuPG does not have the correspondent's key {fingerprint}; the mail client's "
            "own copy is on the volume."
        )
        return False
    return True


def _adopt(house: House, wish: Wish) -> Result:
    from sandbox.lifecycle.onboard import onboard

    made = onboard(house, wish)
    summary = f"{wish.name} is recovered and ready to open; the file it came from is as it was."
    return replace(made, verb="recover", summary=summary)


def _nothing_here(house: House, name: str) -> MailboxError:
    try:
        house.records.load(name)
    except MailboxError as error:
        if error.code != "profile-unknown":
            return error
    return MailboxError(
        f"There is no mailbox named {name!r} on this computer.",
        resolution="Name a copy of its volume with --volume; --profile names its profile.",
        code="profile-unknown",
        exit_code=Exit.NOT_FOUND,
    )
