"""The commands on a mailbox's own key: seen closely, made, replaced, extended, revoked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from sandbox.cli import correspondents
from sandbox.cli import onboarding as input_
from sandbox.cli.app import NAME, _verb_of
from sandbox.cli.compose import compose
from sandbox.cli.key_commands import keys
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.keydetails import Algorithm, NewKey, Part, Reason
from sandbox.model.names import parse_fingerprint

_ = correspondents  # who loads this group has all of its commands


def _on_keys(
    *decorators: Callable[[Any], Any],
) -> Callable[[Callable[..., Any]], click.Command]:
    return _verb_of(keys, decorators)


def _checked(convert: Callable[[str], str]) -> Callable[..., str | None]:
    def callback(_context: object, _parameter: object, value: str | None) -> str | None:
        try:
            return convert(value) if value else None
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def _lasting(text: str) -> str:
    """As GnuPG takes it: 2y, 18m, 90d, a day, or never."""
    if text == "never":
        return "0"
    if text[:-1].isdecimal() and 0 < int(text[:-1]) < 10_000 and text[-1] in "dwmy":
        return text
    try:
        if date.fromisoformat(text) > datetime.now(UTC).date():
            return text
    except ValueError:
        pass
    raise ValueError(f"{text!r} is neither like 2y, 18m or 90d, nor a day to come, nor `never`")


_FINGERPRINT = click.argument(
    "fingerprint", required=False, metavar="[FINGERPRINT]", callback=_checked(parse_fingerprint)
)
_LASTS = click.option(
    "--expires",
    default="2y",
    show_default=True,
    metavar="TIME",
    callback=_checked(_lasting),
    help="How long the key lasts: 2y, 18m, 90d, a day such as 2028-05-04, or never.",
)
_ALGORITHM = click.option(
    "--algorithm",
    type=click.Choice([str(each) for each in Algorithm]),
    default=str(Algorithm.ED25519),
    show_default=True,
    help="What a new key is made of; ed25519 encrypts with cv25519.",
)
_PUBLIC = click.option("--public", is_flag=True, help="Print the public key, armored.")


@_on_keys(
    NAME,
    _FINGERPRINT,
    _PUBLIC,
    click.option("--letter", is_flag=True, help="Print the text that tells of a rotation."),
)
def show(printer: Printer, name: str, fingerprint: str | None, public: bool, letter: bool) -> None:
    """Show one key closely: the mailbox's own, or another of its keys."""
    from sandbox.lifecycle.key_details import public_key, show_key

    house = compose(printer)
    if letter:
        from sandbox.lifecycle.own_keys import letter_again

        again = letter_again(house, name)
        if printer.as_json:
            printer.document(asdict(again))
        else:
            printer.line(again.letter)
        return
    shown = show_key(house, name, fingerprint)
    if printer.as_json:
        armored = {"public": public_key(house, shown)} if public else {}
        printer.document({**asdict(shown), **armored})
    elif public:
        printer.line(public_key(house, shown))
    else:
        printer.fields(_fields(shown))


def _fields(shown: Any) -> dict[str, str]:
    details = shown.details
    own = shown.role != "correspondent"
    fields = {
        "key": shown.fingerprint,
        "of": f"{shown.name} ({shown.role})" if own else ", ".join(shown.addresses),
        "problem": shown.problem or "none",
        "since": shown.since[:19].replace("T", " "),
        "user ids": "\n".join(_printable(f"{u.text}{_state(u.state)}") for u in details.user_ids),
        "primary key": _part(details.primary, own=own),
    }
    for number, part in enumerate(details.parts[1:], start=1):
        fields[f"subkey {number}"] = _part(part, own=own)
    if own:
        fields["custody"] = shown.custody
        fields["revocation"] = shown.revocation or "no certificate: the primary part is elsewhere"
    return fields


def _part(part: Part, *, own: bool) -> str:
    ends = f"expires {_day(part.expires)}" if part.expires else "never expires"
    secret = {"here": "secret here", "none": "no secret here", "offline": "secret elsewhere"}
    where = secret.get(part.secret, f"secret on the smartcard {part.secret}")
    said = [part.algorithm, "+".join(part.uses), f"made {_day(part.created)}", ends]
    lines = ", ".join([*said, *([where] if own else [])]) + _state(part.state)
    return f"{part.fingerprint}\n{lines}"


def _state(state: str) -> str:
    return "" if state == "valid" else f" ({state})"


def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _printable(text: str) -> str:
    """A user id is anybody's text: nothing in it may steer the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


@_on_keys(NAME, _ALGORITHM, _LASTS, DRY_RUN)
def generate(printer: Printer, name: str, algorithm: str, expires: str, dry_run: bool) -> None:
    """Make an OpenPGP key for a mailbox that has none.

    Its revocation certificate is made at once and kept in the mailbox's key ring.
    """
    from sandbox.lifecycle.own_keys import generate as generate_key
    from sandbox.lifecycle.own_keys import plan_generate

    house = compose(printer)
    if dry_run:
        _show_plan(printer, house, name, plan_generate)
        return
    new = NewKey(Algorithm(algorithm), expires)
    with printer.working():
        result = generate_key(house, name, new)
    printer.result(result)


@_on_keys(
    NAME,
    click.option("--key", metavar="FINGERPRINT", callback=_checked(parse_fingerprint),
                 help="Take this key from your GnuPG instead of a new one."),
    click.option("--key-file", metavar="FILE", help="Take the key in this file."),
    click.option("--key-passphrase-fd", type=int, metavar="N",
                 help="Read the key's passphrase from descriptor N instead of asking."),
    _ALGORITHM,
    _LASTS,
    DRY_RUN,
)  # fmt: skip
def rotate(
    printer: Printer,
    name: str,
    key: str | None,
    key_file: str | None,
    key_passphrase_fd: int | None,
    algorithm: str,
    expires: str,
    dry_run: bool,
) -> None:
    """Give a mailbox another key; the old one goes on opening old mail.

    Prints a text to send to correspondents, signed by the old key and followed by the new one.
    """
    from sandbox.lifecycle.onboard import KeyChoice
    from sandbox.lifecycle.own_keys import Rotation, plan_rotate
    from sandbox.lifecycle.own_keys import rotate as rotate_key

    if key and key_file:
        raise click.UsageError("Give only one of --key and --key-file.")
    choice = KeyChoice(
        fingerprint=key,
        file=input_.read_file("--key-file", key_file),
        generate=not (key or key_file),
        ask=input_.passphrase_source(key_passphrase_fd),
    )
    wish = Rotation(choice, NewKey(Algorithm(algorithm), expires))
    house = compose(printer)
    if dry_run:
        _show_plan(printer, house, name, lambda profile: plan_rotate(profile, wish))
        return
    with printer.working():
        result = rotate_key(house, name, wish)
    printer.result(result)
    if not printer.as_json:
        printer.line("")
        printer.line(str(result.facts["letter"]))


@_on_keys(
    NAME,
    _LASTS,
    click.option("--key-file", metavar="FILE",
                 help="Take the dates of this public key, extended elsewhere."),
    click.option("--from-gnupg", is_flag=True, help="Take the dates of the key in your GnuPG."),
    DRY_RUN,
)  # fmt: skip
def extend(
    printer: Printer,
    name: str,
    expires: str,
    key_file: str | None,
    from_gnupg: bool,
    dry_run: bool,
) -> None:
    """Move the day on which a mailbox's own key expires, and its subkeys with it.

    A key whose primary part is elsewhere is extended there; then --key-file or --from-gnupg.
    """
    from sandbox.lifecycle.own_keys import Extension, plan_extend
    from sandbox.lifecycle.own_keys import extend as extend_key

    if key_file and from_gnupg:
        raise click.UsageError("Give only one of --key-file and --from-gnupg.")
    wish = Extension(expires, input_.read_file("--key-file", key_file), from_gnupg)
    house = compose(printer)
    if dry_run:
        _show_plan(printer, house, name, plan_extend)
        return
    with printer.working():
        result = extend_key(house, name, wish)
    printer.result(result)


@_on_keys(
    NAME,
    _FINGERPRINT,
    click.option("--reason", type=click.Choice([str(each) for each in Reason]),
                 default=str(Reason.UNSPECIFIED), show_default=True, help="Why, for everybody."),
    click.option("--words", default="", metavar="TEXT", help="The reason in words."),
    click.option("--certificate", metavar="FILE",
                 help="Apply this revocation certificate instead of making one."),
    click.option("--save", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                 help="Revoke nothing: write the kept certificate to a new file."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    DRY_RUN,
)  # fmt: skip
def revoke(
    printer: Printer,
    name: str,
    fingerprint: str | None,
    reason: str,
    words: str,
    certificate: str | None,
    save: Path | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Revoke a mailbox's own key, or one that it had before; old mail still opens.

    A certificate that was saved beside the recovery code revokes the key even when this computer
    is lost: `gpg --import` it anywhere, and publish the key.
    """
    from sandbox.lifecycle.own_keys import Revocation, plan_revoke, save_certificate
    from sandbox.lifecycle.own_keys import revoke as revoke_key

    house = compose(printer)
    if save is not None:
        printer.result(save_certificate(house, name, fingerprint, save))
        return
    given = input_.read_file("--certificate", certificate)
    wish = Revocation(fingerprint, Reason(reason), _words(words), given)
    if dry_run:
        _show_plan(printer, house, name, lambda profile: plan_revoke(profile, wish))
        return
    _confirm(
        printer,
        f"Revoke the key of {name}? Once it is published, there is no way back.",
        "Revoking a key has no way back; nothing was changed.",
        yes=yes,
    )
    with printer.working():
        result = revoke_key(house, name, wish)
    printer.result(result)


@_on_keys(
    NAME,
    click.argument("fingerprint", callback=_checked(parse_fingerprint)),
    click.option("--yes", is_flag=True, help="Do not ask."),
    DRY_RUN,
)
def forget(printer: Printer, name: str, fingerprint: str, yes: bool, dry_run: bool) -> None:
    """Destroy a key that a mailbox had before; mail encrypted to it cannot be read any more.

    Its public part and what revokes it stay. The mail client lets go of its copy at the next open.
    A copy in your own GnuPG is not touched.
    """
    from sandbox.lifecycle.forget_key import forget as forget_key
    from sandbox.lifecycle.forget_key import plan_forget

    house = compose(printer)
    if dry_run:
        _show_plan(printer, house, name, lambda profile: plan_forget(profile, fingerprint))
        return
    # Refused before anything is asked, and not asked when there is nothing to destroy.
    if plan_forget(house.records.load(name), fingerprint).steps:
        _confirm(
            printer,
            f"Destroy {fingerprint}? Mail of {name} that is encrypted to it can never be read "
            "again.",
            "A destroyed key does not come back, nor does its mail; nothing was changed.",
            yes=yes,
        )
    with printer.working():
        result = forget_key(house, name, fingerprint)
    printer.result(result)


def _words(text: str) -> str:
    if text and (not text.isprintable() or len(text) > 500):
        problem = "--words: is not one line of at most 500 characters"
        raise InvalidInputError("The input", [problem], meaning="nothing was changed")
    return text


def _confirm(printer: Printer, question: str, meaning: str, *, yes: bool) -> None:
    import sys

    if yes:
        return
    if printer.as_json or not sys.stdin.isatty():
        raise MailboxError(
            meaning,
            resolution="Say --yes.",
            code="not-confirmed",
            exit_code=Exit.USAGE,
        )
    if not click.confirm(question, default=False, err=True):
        raise click.Abort


def _show_plan(printer: Printer, house: Any, name: str, plan: Callable[[Any], Any]) -> None:
    from sandbox.lifecycle import preview

    show_plan(printer, preview.changing_own_key(house, name, plan))
