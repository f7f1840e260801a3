"""The commands on mailboxes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sandbox.cli.app import NAME, OPTIONAL_NAME, verb
from sandbox.cli.compose import compose
from sandbox.cli.output import Kept, Printer
from sandbox.cli.passwords import DAV_PASSWORD
from sandbox.cli.plans import DRY_RUN, show_plan, show_plans
from sandbox.lifecycle.house import Result
from sandbox.model.errors import Exit, MailboxError

_HEADLESS = click.option("--headless", is_flag=True, help="Show no window (servers, tests).")


@verb()
def doctor(printer: Printer) -> int:
    """Say what this computer can do and what is missing, each with its remedy."""
    from sandbox.cli import diagnose

    with printer.working():
        findings = diagnose.collect_findings(printer)
    return diagnose.report(printer, findings)


@verb(
    NAME,
    _HEADLESS,
    click.option(
        "--trace",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write there how long each step and phase took (JSON).",
    ),
    DRY_RUN,
)
def open_(printer: Printer, name: str, headless: bool, trace: Path | None, dry_run: bool) -> None:
    """Open a mailbox: start its machine, let it go on, or show it again.

    Returns when the mail client is usable.
    """
    from sandbox.cli.trace import write_trace
    from sandbox.lifecycle.open import open_mailbox

    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.opening(compose(printer), name))
        return
    with printer.working():
        result = open_mailbox(compose(printer), name, headless=headless)
    if trace is not None:
        write_trace(trace, result)
    printer.result(result)
    if not headless and not result.facts["shown"]:
        printer.warn("No window could be shown here: no desktop, or virt-viewer is missing.")


@verb(
    OPTIONAL_NAME,
    click.option("--all", "everyone", is_flag=True, help="Close every open mailbox."),
    click.option("--shutdown", is_flag=True, help="Shut it down, whatever its profile says."),
    DRY_RUN,
)
def close(printer: Printer, name: str | None, everyone: bool, shutdown: bool, dry_run: bool) -> int:
    """Close a mailbox: its machine is gone, its key out of memory.

    The mail client is asked to close first; what does not end in time is ended hard.
    With `on_close = "suspend"` in its profile it is suspended. --shutdown discards a suspended
    machine, too.
    """
    from sandbox.lifecycle.close import close as close_mailbox
    from sandbox.lifecycle.close import names_to_close

    if bool(name) == everyone:
        raise click.UsageError("Give either a NAME or --all.")
    house = compose(printer)
    if dry_run:
        from sandbox.lifecycle import preview

        plans = [
            preview.closing(house, each, shutdown=shutdown)
            for each in ([name] if name else names_to_close(house))
        ]
        show_plans(printer, plans, "There is no mailbox to close.")
        return Exit.OK
    if name:
        with printer.working():
            result = close_mailbox(house, name, shutdown=shutdown)
        printer.result(result)
        return Exit.OK
    with printer.results("close", "There is no mailbox to close.") as results:
        for each in names_to_close(house):
            try:
                with printer.working():
                    result = close_mailbox(house, each, shutdown=shutdown)
            except MailboxError as error:
                results.failed(each, error)
            else:
                results.add(result)
    return results.exit_code


@verb(NAME, DRY_RUN)
def suspend(printer: Printer, name: str, dry_run: bool) -> None:
    """Suspend a mailbox: its machine's memory is put away, encrypted.

    The next open goes on from there, in a moment. Needs FUSE.
    """
    from sandbox.lifecycle.suspend import suspend as suspend_mailbox

    if dry_run:
        from sandbox.lifecycle import preview

        show_plan(printer, preview.suspending(compose(printer), name))
        return
    with printer.working():
        result = suspend_mailbox(compose(printer), name)
    printer.result(result)


@verb(NAME, _HEADLESS, DRY_RUN)
def switch(printer: Printer, name: str, headless: bool, dry_run: bool) -> None:
    """Open a mailbox, and suspend those others whose profile says so.

    The others stay open.
    """
    from sandbox.lifecycle.switch import switch as switch_mailboxes

    if dry_run:
        from sandbox.lifecycle import preview

        show_plans(printer, preview.switching(compose(printer), name), "")
        return
    with printer.working():
        result = switch_mailboxes(compose(printer), name, headless=headless)
    printer.result(result)


@verb()
def list_(printer: Printer) -> None:
    """List all mailboxes and their states."""
    from sandbox.cli.views import print_list
    from sandbox.lifecycle.observe import observe_all

    print_list(printer, observe_all(compose(printer)))


@verb(OPTIONAL_NAME)
def status(printer: Printer, name: str | None) -> None:
    """Tell the state of one mailbox closely, or of all."""
    from sandbox.cli.views import print_list, print_status
    from sandbox.lifecycle.observe import look_at, observe_all
    from sandbox.lifecycle.settle import find_name

    house = compose(printer)
    if name is None:
        print_list(printer, observe_all(house))
    else:
        print_status(printer, house, look_at(house, find_name(house, name)))


@verb(NAME)
def show(printer: Printer, name: str) -> None:
    """Show what is written down about a mailbox (there are no secrets in it)."""
    from sandbox.cli.views import print_profile

    print_profile(printer, compose(printer).records.load(name))


@verb(
    NAME,
    click.option(
        "--root", is_flag=True, help="As the machine's root, not as the mail client's user."
    ),
    click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED),
)
def run(printer: Printer, name: str, root: bool, command: tuple[str, ...]) -> int:
    """Run a command in an open mailbox's machine.

    \b
    mailbox run clientA -- ls -l Downloads
    mailbox run clientA -- cat Downloads/offer.pdf > offer.pdf

    Its input, output and exit code pass through; with --json the output is in the report. What
    comes out was made by the machine: treat it as you treat a mail from a stranger.
    """
    house = compose(printer)
    known = house.records.load(name).name
    warden = house.wardens.find(house.paths.control_socket(known))
    kept = (Kept(), Kept()) if printer.as_json else None
    try:
        code = warden.run(
            command,
            user="root" if root else "mail-user",
            stdin=None if sys.stdin.isatty() else sys.stdin.buffer,
            stdout=kept[0] if kept else sys.stdout.buffer,
            stderr=kept[1] if kept else sys.stderr.buffer,
        )
    except MailboxError as error:
        raise _if_closed(error, known) from None
    if kept:
        facts = {"exit_code": code, "stdout": kept[0].text, "stderr": kept[1].text}
        facts["cut"] = any(each.cut for each in kept)
        printer.result(Result("run", known, f"The command ended with {code}.", facts))
    return code


def _if_closed(error: MailboxError, name: str) -> MailboxError:
    if error.code != "warden-gone":
        return error
    return MailboxError(
        f"{name} is not open.",
        resolution=f"`mailbox open {name}` first.",
        code="machine-closed",
        exit_code=Exit.MACHINE,
    )


@verb(NAME, click.argument("file", type=click.Path(dir_okay=False, path_type=Path)))
def screenshot(printer: Printer, name: str, file: Path) -> None:
    """Save a picture (PNG) of what an open mailbox's machine shows."""
    from sandbox.host.picture import to_png
    from sandbox.lifecycle.picture import save_screenshot

    printer.result(save_screenshot(compose(printer), name, file, to_png))


@verb(NAME, *DAV_PASSWORD)
def edit(printer: Printer, name: str, **given: Any) -> None:
    """Edit a mailbox's profile in $EDITOR; the old one stays when the new one is not valid.

    With --dav-password-stdin or --dav-password-fd only that password is changed.
    """
    from sandbox.cli.editing import edit_mailbox

    printer.result(edit_mailbox(compose(printer), name, **given))


@verb(OPTIONAL_NAME, DRY_RUN)
def repair(printer: Printer, name: str | None, dry_run: bool) -> None:
    """Finish or undo what a killed command left, in one mailbox or in all."""
    from sandbox.lifecycle.settle import repair as repair_mailboxes

    if dry_run:
        from sandbox.lifecycle import preview

        plans = preview.repairing(compose(printer), name)
        show_plans(printer, plans, "Nothing is unfinished.")
        return
    done = repair_mailboxes(compose(printer), name)
    if name:
        printer.result(done[0])
        return
    with printer.results("repair", "Nothing was left unfinished.") as results:
        for result in done:
            results.add(result)


@verb(NAME)
def log(printer: Printer, name: str) -> int:
    """Show the journal: what was done to a mailbox and when. It outlives the mailbox."""
    from sandbox.cli.views import print_log
    from sandbox.model.errors import InvalidInputError
    from sandbox.model.names import name_problem

    problem = name_problem(name)
    if problem:
        raise InvalidInputError("The name", [problem])
    house = compose(printer)
    history = house.journal(house.records.find(name) or name).read()
    if not history.entries:
        house.records.load(name)
    print_log(printer, history)
    return Exit.OK if history.broken_at is None else Exit.DAMAGED


@verb(click.argument("shell", type=click.Choice(["bash", "zsh", "fish"])))
def completion(printer: Printer, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    eval "$(mailbox completion bash)"        # in ~/.bashrc; zsh likewise
    mailbox completion fish | source
    """
    from click.shell_completion import get_completion_class

    from sandbox.cli.app import cli

    kind = get_completion_class(shell)
    if kind is not None:
        printer.line(kind(cli, {}, "mailbox", "_MAILBOX_COMPLETE").source())
