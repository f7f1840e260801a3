"""`shred`: what is known is listed before it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import click

from sandbox.cli.app import NAME, OPTIONAL_NAME, verb
from sandbox.cli.certificates import SIGN_WITH, write_signature
from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan, show_plans
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.shredding import Order
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.inventory import Copy, unknown_ids
from sandbox.model.names import text_problem


def _said(_context: object, option: click.Parameter, text: str | None) -> str:
    problem = text_problem(text or "")
    if problem:
        raise click.BadParameter(problem, param=option)
    return text or ""


def _day(_context: object, option: click.Parameter, text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a day such as 2031-12-31", param=option
        ) from None


@verb(
    OPTIONAL_NAME,
    click.option("--due", is_flag=True, help="Every mailbox whose day of --retain-until has come."),
    click.option("--yes", is_flag=True, help="Do not ask (for scripts)."),
    click.option("--because", metavar="TEXT", callback=_said, help="Why, for the certificate."),
    click.option("--ordered-by", metavar="TEXT", callback=_said, help="By whose order."),
    click.option(
        "--confirm",
        "confirmed",
        multiple=True,
        metavar="COPY",
        help="State that a copy out of reach is destroyed or was never made (repeatable).",
    ),
    click.option(
        "--retain-until",
        metavar="DATE",
        callback=_day,
        help="Do not destroy: close it for use and keep it until DATE (needs --because).",
    ),
    click.option(
        "--override-retention",
        "override",
        metavar="TEXT",
        callback=_said,
        help="Destroy before the day until which it is kept; why, for the record.",
    ),
    DRY_RUN,
    SIGN_WITH,
)
def shred(
    printer: Printer,
    name: str | None,
    due: bool,
    yes: bool,
    because: str,
    ordered_by: str,
    confirmed: tuple[str, ...],
    retain_until: date | None,
    override: str,
    dry_run: bool,
    sign_with: str | None,
) -> int:
    """Destroy a mailbox for good: first its keys, then its volume and records.

    It lists every copy of keys and data that it knows, destroys those it can reach, looks for what
    is left, and ends with a certificate. Copies out of its reach stay on record as open, unless you
    state with --confirm, or when asked, that they are gone.

    \b
    mailbox shred clientA
    mailbox shred clientA --yes --because "contract ended" --confirm provider-password
    mailbox shred --due --yes
    """
    from sandbox.lifecycle.settle import find_name

    order = Order(because, ordered_by, confirmed, override)
    if due:
        if name or retain_until or override:
            raise click.UsageError("--due goes with no NAME, --retain-until, --override-retention.")
        return _shred_due(printer, order, yes=yes, dry_run=dry_run, sign_with=sign_with)
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    if retain_until:
        _retain(printer, name, retain_until, because, dry_run=dry_run)
        return Exit.OK
    house = compose(printer)
    known = find_name(house, name)
    if dry_run:
        _show(printer, house, known, order, _inventory(house, known, order))
        return Exit.OK
    result = _shred(printer, house, known, order, yes=yes, sign_with=sign_with)
    printer.result(result)
    _tell_rest(printer, result)
    return Exit.OK


def _shred_due(
    printer: Printer, order: Order, *, yes: bool, dry_run: bool, sign_with: str | None
) -> int:
    """Shred every mailbox that is due; one that fails holds up no other."""
    from sandbox.lifecycle import preview
    from sandbox.lifecycle.retain import due
    from sandbox.state.retentions import today

    house, nothing = compose(printer), "No retention has ended."
    names = due(house, today())
    if dry_run:
        show_plans(printer, [preview.shredding(house, name, order) for name in names], nothing)
        return Exit.OK
    with printer.results("shred", nothing) as results:
        for name in names:
            try:
                result = _shred(printer, house, name, order, yes=yes, sign_with=sign_with)
            except MailboxError as error:
                results.failed(name, error)
                continue
            results.add(result)
            _tell_rest(printer, result)
    return results.exit_code


def _shred(
    printer: Printer, house: House, name: str, order: Order, *, yes: bool, sign_with: str | None
) -> Result:
    from sandbox.lifecycle.shred import shred as shred_mailbox

    rows = _inventory(house, name, order)
    if not yes:
        stated = _ask(printer, name, rows, order.confirmed)
        order = replace(order, confirmed=(*order.confirmed, *stated))
    with printer.working():
        result = shred_mailbox(house, name, order)
    if sign_with:
        place = Path(str(result.facts["certificate"]))
        write_signature(place, place.read_bytes(), sign_with)
    return result


def _inventory(house: House, name: str, order: Order) -> Sequence[Copy]:
    from sandbox.lifecycle.case import take_inventory

    rows = take_inventory(house, name)
    wrong = unknown_ids(rows, order.confirmed)
    if wrong:
        beyond = ", ".join(row.id for row in rows if not row.destroys)
        problems = [f"--confirm: {each!r} is none of: {beyond}" for each in wrong]
        raise InvalidInputError("The input", problems)
    return rows


def _tell_rest(printer: Printer, result: Result) -> None:
    if result.facts["open"]:
        printer.note(f"Out of reach and open: {', '.join(result.facts['open'])}.")
    printer.note(f"`mailbox certificate {result.name}` shows the certificate.")


@verb(
    NAME,
    click.option("--until", metavar="DATE", required=True, callback=_day, help="As 2031-12-31."),
    click.option("--because", metavar="TEXT", required=True, callback=_said, help="Why."),
    DRY_RUN,
)
def retain(printer: Printer, name: str, until: date, because: str, dry_run: bool) -> None:
    """Close a mailbox for use and keep it until a day, such as the law wants it.

    It cannot be opened any more. `list` reminds; from that day on `shred` destroys it.

    \b
    mailbox retain clientA --until 2031-12-31 --because "tax law, six years"
    """
    _retain(printer, name, until, because, dry_run=dry_run)


def _retain(printer: Printer, name: str, until: date, because: str, *, dry_run: bool) -> None:
    from sandbox.lifecycle.retain import retain as retain_mailbox

    if not because:
        raise InvalidInputError("The input", ["--because: is missing"])
    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.retaining(compose(printer), name, until, because))
        return
    with printer.working():
        result = retain_mailbox(compose(printer), name, until, because)
    printer.result(result)


def _show(printer: Printer, house: House, name: str, order: Order, rows: Sequence[Copy]) -> None:
    from sandbox.lifecycle import preview

    show_plan(printer, preview.shredding(house, name, order), copies=[asdict(row) for row in rows])
    if not printer.as_json:
        show_inventory(printer, rows)


def _ask(
    printer: Printer, name: str, rows: Sequence[Copy], confirmed: Sequence[str]
) -> tuple[str, ...]:
    printer.note(f"This destroys the keys and the mail of {name} on this computer. No way back.")
    show_inventory(printer, rows)
    stated: tuple[str, ...] = ()
    if not sys.stdin.isatty():
        typed = sys.stdin.readline().strip()
    else:
        stated = _ask_each(rows, confirmed)
        typed = click.prompt(f"Type {name} to go on", default="", show_default=False, err=True)
    if typed != name:
        raise MailboxError(
            "The name was not repeated; nothing was destroyed.",
            resolution="Type it exactly, or use --yes in scripts.",
            code="not-confirmed",
            exit_code=Exit.USAGE,
        )
    return stated


def show_inventory(printer: Printer, rows: Sequence[Copy]) -> None:
    """The copies that are known: those that go, and those that nobody here can destroy."""
    printer.note("It destroys:")
    for row in rows:
        if row.destroys:
            printer.note(f"  {_line(row)}")
    printer.note("It cannot destroy:")
    for row in rows:
        if not row.destroys:
            printer.note(f"  {_line(row)}{'' if row.seen else ', if there is one'}")


def _line(row: Copy) -> str:
    from sandbox.report.words import label

    where = f" ({row.where})" if row.where else ""
    return f"{row.id}: {label(row.id, 'en')}{where}"


def _ask_each(rows: Sequence[Copy], confirmed: Sequence[str]) -> tuple[str, ...]:
    """One by one; what is not confirmed stays on record as open."""
    asked = [row for row in rows if not row.destroys and row.id not in confirmed]
    question = "Is this copy destroyed, or was it never made: {}?"
    return tuple(
        row.id
        for row in asked
        if click.confirm(question.format(_line(row)), default=False, err=True)
    )
