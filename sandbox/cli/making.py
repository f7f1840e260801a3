"""`onboard`: a mailbox is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from sandbox.cli.app import NAME, verb
from sandbox.cli.compose import compose
from sandbox.cli.handover import CODE_TO, recipient
from sandbox.cli.output import Printer
from sandbox.cli.plans import DRY_RUN, show_plan
from sandbox.cli.wishes import ACCOUNT, gather_wish, text_option


@verb(
    NAME,
    *ACCOUNT,
    text_option("--size", "SIZE", "What the volume may grow to, such as 20G."),
    CODE_TO,
    DRY_RUN,
    click.option("--no-recovery-code", is_flag=True, help="Make none (a lost keyring is the end)."),
    click.option("--reuse-name", is_flag=True, help="Take the name of a shredded mailbox again."),
)
def onboard(
    printer: Printer,
    name: str,
    code_to: str | None,
    no_recovery_code: bool,
    dry_run: bool,
    **said: Any,
) -> None:
    """Make a mailbox: its keys, its encrypted volume, its account.

    On a terminal it asks for what is missing. Nothing is written before servers, certificate and
    login have been checked; when a step fails, everything it did is undone. The recovery code is
    shown once, on the terminal; in scripts say --recovery-code-to.

    \b
    mailbox onboard clientA
    mailbox onboard clientA --address anna@kunde.example --generate-key
    mailbox onboard clientA --from clientA.toml --password-stdin < password
    """
    from sandbox.lifecycle.onboard import onboard as onboard_mailbox

    house = compose(printer)
    if code_to and not no_recovery_code:
        recipient(printer, name, code_to)  # refused before the first question
    wish = gather_wish(printer, house, name, **said)
    if not no_recovery_code:
        wish = replace(wish, hand_over=recipient(printer, name, code_to))
    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.onboarding(house, wish))
        return
    if not wish.check_servers:
        printer.warn("Servers and login were not checked (--offline).")
    with printer.working():
        result = onboard_mailbox(house, wish)
    printer.result(result)
    if not printer.as_json:
        for each in house.records.load(result.name).keys.correspondents:
            printer.note(f"It accepts {each.fingerprint} of {', '.join(each.addresses)}.")
