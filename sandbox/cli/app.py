"""`mailbox`: the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

from sandbox import __version__
from sandbox.cli.output import Printer
from sandbox.model.errors import Exit, MailboxError


class _Commands(click.Group):
    """Lists commands in the order a mailbox meets them, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailbox")
def cli() -> None:
    """A machine of its own for every customer's mail.

    Each customer has a profile with an encrypted volume and OpenPGP keys of its own.
    `open` starts a virtual machine with the mail client already set up; it reaches that
    customer's mail servers and nothing else. `close` leaves only ciphertext.

    \b
    A first day:
      mailbox doctor                 is this computer ready?
      mailbox image build            build the guest system, once
      mailbox onboard clientA        a few questions
      mailbox open clientA           read and write
      mailbox close clientA
    """


def verb(*decorators: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with --json and -v whose errors are sentences and documented exit codes."""
    return _verb_of(cli, decorators)


def _verb_of(
    group: click.Group, decorators: tuple[Callable[[Any], Any], ...]
) -> Callable[[Callable[..., Any]], click.Command]:
    def decorate(function: Callable[..., Any]) -> click.Command:
        def invoke(as_json: bool, verbose: int, **values: Any) -> None:
            printer = Printer(as_json=as_json, verbose=verbose)
            sys.exit(_run(printer, lambda: function(printer, **values)))

        wrapped: Any = update_wrapper(invoke, function)
        for decorator in reversed(decorators):
            wrapped = decorator(wrapped)
        wrapped = click.option("--json", "as_json", is_flag=True, help="Report as JSON.")(wrapped)
        wrapped = click.option("-v", "--verbose", count=True, help="Say more.")(wrapped)
        name = function.__name__.strip("_").replace("_", "-")
        return group.command(name)(wrapped)

    return decorate


def _run(printer: Printer, action: Callable[[], int | None]) -> int:
    try:
        return int(action() or Exit.OK)
    except MailboxError as error:
        printer.error(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        stopped = "Stopped. Nothing is lost; the next command on this mailbox goes on from here."
        printer.error(MailboxError(stopped, code="interrupted", exit_code=Exit.INTERRUPTED))
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.FAILED


NAME = click.argument("name", metavar="NAME", shell_complete=lambda *_: _profile_names())


def _profile_names() -> list[str]:
    from sandbox.cli.compose import compose

    try:
        return compose(Printer()).records.names()
    except MailboxError:
        return []


def main() -> None:
    """The console entry point."""
    import resource

    from sandbox.cli import commands, image_commands

    # Secrets pass through this process: a crash must not write them to the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _ = (commands, image_commands)
    cli(prog_name="mailbox")
