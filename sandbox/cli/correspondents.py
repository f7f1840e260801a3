"""`keys add`: from what the user names to keys that the user has agreed to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from sandbox.cli.app import NAME
from sandbox.cli.checker import Checker
from sandbox.cli.compose import compose
from sandbox.cli.key_commands import on_keys
from sandbox.cli.onboarding import read_file
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan
from sandbox.lifecycle.house import House
from sandbox.model.endpoints import parse_connect
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.names import address_problem, parse_fingerprint
from sandbox.model.offers import Offer, Offered, Source, Way, not_among, one_uid, several

# A mail with attachments; more is no mail.
_LONGEST_INPUT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Asked:
    """Which keys the user named, and where those are to be looked up that are not here."""

    keys: tuple[str, ...]
    mails: tuple[str, ...]
    keyserver: str | None
    way: Way


@dataclass(frozen=True)
class Consent:
    """What the user said beforehand: these keys, all of a file, or whatever is found."""

    fingerprints: tuple[str, ...]
    every: bool
    yes: bool


@on_keys(
    NAME,
    click.argument("keys", metavar="[KEY...]", nargs=-1),
    click.option("--keyserver", metavar="URL", help="Ask this key server, hkps://HOST[:PORT]."),
    click.option(
        "--from-mail",
        "mails",
        multiple=True,
        metavar="MESSAGE-ID",
        help="Take the key of a mail on the customer's server (repeatable).",
    ),
    click.option(
        "--all", "every", is_flag=True, help="Leave out keys of a file that cannot be used."
    ),
    click.option(
        "--fingerprint",
        "fingerprints",
        multiple=True,
        metavar="FINGERPRINT",
        help="Accept this key only, without a question (repeatable).",
    ),
    click.option("--yes", is_flag=True, help="Accept what is found without a question."),
    click.option("--ca", metavar="FILE", help="Authorities (PEM) that vouch for the key's server."),
    click.option(
        "--connect-to",
        "detours",
        multiple=True,
        metavar="HOST:PORT:TARGET:PORT",
        help="Reach a key's server at another place; its name stays checked.",
    ),
    DRY_RUN,
)
def add(
    printer: Printer,
    name: str,
    keys: tuple[str, ...],
    keyserver: str | None,
    mails: tuple[str, ...],
    every: bool,
    fingerprints: tuple[str, ...],
    yes: bool,
    ca: str | None,
    detours: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Accept correspondents' keys.

    Each KEY is one of these:

    \b
      FINGERPRINT   taken from your GnuPG, or from --keyserver
      ADDRESS       looked up in the address's domain (WKD), or at --keyserver
      FILE          a file of keys, or a mail with an Autocrypt header or an attached key
      -             the same on standard input

    What was looked up or came with a mail is shown, and accepted when you say so. Compare the
    fingerprint with the correspondent first, by another way than mail.
    """
    from sandbox.lifecycle.correspondents import add as add_keys

    house = compose(printer)
    known = house.records.load(name).name
    consent = Consent(tuple(_fingerprint(each) for each in fingerprints), every, yes)
    asked = Asked(keys, mails, keyserver, _way(ca, detours))
    offers = _chosen(printer, _found(house, known, asked, consent), consent)
    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.adding_keys(house, known, offers), keys=_rows(offers))
        return
    printer.result(add_keys(house, known, offers))


def _fingerprint(text: str) -> str:
    try:
        return parse_fingerprint(text)
    except ValueError as error:
        raise click.UsageError(f"--fingerprint: {error}") from None


def _way(ca: str | None, detours: Sequence[str]) -> Way:
    content = read_file("--ca", ca)
    try:
        parsed = [parse_connect(each) for each in detours]
    except ValueError as error:
        raise click.UsageError(f"--connect-to: {error}") from None
    places = {(host, port): (target, other) for host, port, target, other in parsed}
    return Way(content.decode(errors="replace") if content is not None else None, places)


def _found(house: House, name: str, asked: Asked, consent: Consent) -> list[Offered]:
    """What all that was named offers; your GnuPG is asked once for all fingerprints."""
    from sandbox.lifecycle import correspondents

    if not (asked.keys or asked.mails):
        raise click.UsageError("Name a KEY: a fingerprint, an address or a file.")
    _refuse_unknown(asked.keys)
    prints = [] if asked.keyserver else [each for each in asked.keys if _is_fingerprint(each)]
    sources = correspondents.from_user(house, [parse_fingerprint(each) for each in prints])
    sources += [_source(house, each, asked) for each in asked.keys if each not in prints]
    sources += [correspondents.from_mail_on_server(house, name, each) for each in asked.mails]
    partly = consent.fingerprints or consent.every or consent.yes
    return correspondents.look_into(house, sources, whole=not partly)


def _refuse_unknown(keys: Sequence[str]) -> None:
    """Say of every KEY that is none, before anybody is asked for one.

    Raises:
        InvalidInputError: naming each.
    """
    checker = Checker()
    for key in keys:
        if key == "-" or _is_fingerprint(key):
            continue
        if Path(key).expanduser().exists():
            checker.read("KEY", key)
        elif "@" not in key or address_problem(key):
            problem = f"{key!r} is no full fingerprint, no mail address, and no file"
            checker.problems.append(f"KEY: {problem}")
    if checker.problems:
        raise InvalidInputError("The input", checker.problems)


def _source(house: House, key: str, asked: Asked) -> Source:
    from sandbox.lifecycle import correspondents

    if _is_fingerprint(key) and asked.keyserver:
        server = asked.keyserver
        return correspondents.from_server(house, server, parse_fingerprint(key), asked.way)
    if key == "-":
        return _content("Standard input", sys.stdin.buffer.read(_LONGEST_INPUT))
    if Path(key).expanduser().exists():
        return _content(Path(key).name, read_file("KEY", key) or b"")
    if asked.keyserver:
        return correspondents.from_server(house, asked.keyserver, key, asked.way)
    return correspondents.from_domain(house, key, asked.way)


def _content(shown: str, content: bytes) -> Source:
    """A file of keys is the user's word; a mail is a stranger's."""
    from sandbox.lifecycle import correspondents
    from sandbox.model.mailkeys import is_mail

    if is_mail(content):
        return correspondents.from_mail(shown, content)
    return Source(shown, content, trusted=True)


def _is_fingerprint(text: str) -> bool:
    try:
        return bool(parse_fingerprint(text))
    except ValueError:
        return False


def _chosen(printer: Printer, found: Sequence[Offered], consent: Consent) -> list[Offer]:
    """Those of the offers that the user means and agrees to."""
    offers = {each.key.fingerprint: each for one in found for each in one.offers}
    missing = [each for each in consent.fingerprints if each not in offers]
    if missing:
        raise not_among(missing, list(offers.values()))
    chosen: dict[str, Offer] = {}
    for one in (each.only(consent.fingerprints) for each in found):
        if one.offers:
            _agree(printer, one, consent)
        chosen |= {each.key.fingerprint: each for each in one.offers}
    return list(chosen.values())


def _agree(printer: Printer, found: Offered, consent: Consent) -> None:
    """Ask, where the user has not said yes to these keys already.

    Raises:
        MailboxError: `several-keys`, `key-not-confirmed`.
    """
    for problem in found.problems:
        printer.warn(f"{found.source.shown}: {problem}; it is left out.")
    if found.source.trusted:
        if len(found.offers) > 1:
            _show(printer, found)
        return
    if consent.fingerprints or consent.yes:
        return
    can_ask = _can_ask(printer)
    if len(found.offers) > 1 and (found.source.address or not can_ask):
        raise several(found)
    if not can_ask or not _asked(printer, found):
        raise _unconfirmed(found)


def _can_ask(printer: Printer) -> bool:
    return sys.stdin.isatty() and not printer.as_json


def _asked(printer: Printer, found: Offered) -> bool:
    _show(printer, found)
    printer.note("Compare the fingerprint with the correspondent by another way than mail.")
    many = f"these {len(found.offers)} keys" if len(found.offers) > 1 else "this key"
    return bool(click.confirm(f"Accept {many}?", default=False, err=True))


def _show(printer: Printer, found: Offered) -> None:
    """Each key with its fingerprint."""
    printer.note(f"{found.source.shown}:")
    for row in _rows(found.offers):
        printer.note(f"  {_grouped(row['fingerprint'])}")
        printer.note(f"      {row['user_id']}")


def _rows(offers: Sequence[Offer]) -> list[dict[str, str]]:
    return [
        {
            "fingerprint": each.key.fingerprint,
            "user_id": one_uid(each.key),
            "addresses": ", ".join(each.accepted().addresses),
            "from": each.shown,
        }
        for each in offers
    ]


def _grouped(fingerprint: str) -> str:
    """As people read it aloud."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def _unconfirmed(found: Offered) -> MailboxError:
    rows = _rows(found.offers)
    listed = "\n".join(f"{row['fingerprint']} {row['user_id']}" for row in rows)
    return MailboxError(
        f"The key found at {found.source.shown} needs your word; nothing was accepted.",
        details=listed,
        resolution="Compare the fingerprint with the correspondent by another way than mail, then "
        "say --fingerprint with it (or --yes for whatever is found).",
        code="key-not-confirmed",
        exit_code=Exit.KEYS,
    )
