"""`keys add`: from what the user names to keys that the user has agreed to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from sandbox.cli.app import NAME
from sandbox.cli.compose import compose
from sandbox.cli.key_commands import on_keys
from sandbox.cli.onboarding import read_file
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan
from sandbox.lifecycle.house import House
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.names import parse_fingerprint
from sandbox.model.offers import Offer, Offered, Source, not_among, one_uid, several


@dataclass(frozen=True)
class Consent:
    """What the user said beforehand: these keys, all of a file, or whatever is found."""

    fingerprints: tuple[str, ...]
    every: bool
    yes: bool


@on_keys(
    NAME,
    click.argument("keys", metavar="KEY...", nargs=-1, required=True),
    click.option("--all", "every", is_flag=True, help="Accept every usable key of a file."),
    click.option(
        "--fingerprint",
        "fingerprints",
        multiple=True,
        metavar="FINGERPRINT",
        help="Accept this key only, without a question (repeatable).",
    ),
    click.option("--yes", is_flag=True, help="Accept what is found without a question."),
    DRY_RUN,
)
def add(
    printer: Printer,
    name: str,
    keys: tuple[str, ...],
    every: bool,
    fingerprints: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Accept correspondents' keys.

    Each KEY is a fingerprint (taken from your GnuPG) or a file.

    Compare the fingerprint with the correspondent first, by another way than mail.
    """
    from sandbox.lifecycle.correspondents import add as add_keys

    house = compose(printer)
    known = house.records.load(name).name
    consent = Consent(tuple(_fingerprint(each) for each in fingerprints), every, yes)
    offers = _chosen(printer, _found(house, keys), consent)
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


def _found(house: House, keys: Sequence[str]) -> list[Offered]:
    from sandbox.lifecycle.correspondents import from_user, look_into

    prints, files = [], []
    for each in keys:
        try:
            prints.append(parse_fingerprint(each))
        except ValueError:
            files.append(Source(Path(each).name, read_file("KEY", each) or b"", trusted=True))
    return look_into(house, [*from_user(house, prints), *files])


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
    if consent.fingerprints or consent.yes or (found.source.trusted and consent.every):
        return
    if found.source.trusted and len(found.offers) == 1 and not found.problems:
        return
    can_ask = sys.stdin.isatty() and not printer.as_json
    if len(found.offers) > 1 and (found.source.address or not can_ask):
        raise several(found)
    if not can_ask or not _asked(printer, found):
        raise _unconfirmed(found)


def _asked(printer: Printer, found: Offered) -> bool:
    printer.note(f"{found.source.shown}:")
    for row in _rows(found.offers):
        printer.note(f"  {_grouped(row['fingerprint'])}")
        printer.note(f"      {row['user_id']}")
    printer.note("Compare the fingerprint with the correspondent by another way than mail.")
    many = f"these {len(found.offers)} keys" if len(found.offers) > 1 else "this key"
    return bool(click.confirm(f"Accept {many}?", default=False, err=True))


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
