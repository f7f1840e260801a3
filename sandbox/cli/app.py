"""`mailbox`: the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import click

from sandbox import __version__
from sandbox.cli.output import Printer
from sandbox.model.errors import Exit, MailboxError

_ORDER = (
    *("doctor", "image", "onboard", "open", "switch", "close", "suspend"),
    *("list", "status", "show", "edit", "keys", "run", "screenshot", "log"),
    *("repair", "recover", "recovery-code", "header-backup"),
    *("retain", "shred", "certificate", "completion"),
    *("build", "verify", "remove"),
)


class Commands(click.Group):
    """Lists commands in the order a mailbox meets them, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        known = [name for name in _ORDER if name in self.commands]
        return [*known, *(name for name in self.commands if name not in known)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, with whole sentences."""
        rows = [
            (name, self.commands[name].get_short_help_str(limit=200))
            for name in self.list_commands(ctx)
            if not self.commands[name].hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """As click's, but wrong usage is a JSON object, too, where JSON was asked for."""
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(given, **extra | {"standalone_mode": False})
        except click.ClickException as error:
            sys.exit(_report_usage(error, as_json=_wants_json(given)))
        except click.Abort:
            sys.exit(Exit.INTERRUPTED)
        sys.exit(code if isinstance(code, int) else Exit.OK)


def _wants_json(arguments: list[str]) -> bool:
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in ours


def _report_usage(error: click.ClickException, *, as_json: bool) -> int:
    if not as_json:
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "mailbox"
    Printer(as_json=True).error(
        MailboxError(
            error.format_message(),
            resolution=f"`{command} --help` explains it.",
            code="usage",
            exit_code=Exit.USAGE,
        )
    )
    return error.exit_code


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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


def _profile_names(_context: object, _parameter: object, incomplete: str) -> list[str]:
    from sandbox.cli.compose import compose

    try:
        known = compose(Printer()).records.names()
    except MailboxError:
        return []
    return [name for name in known if name.casefold().startswith(incomplete.casefold())]


NAME = click.argument("name", metavar="NAME", shell_complete=_profile_names)
OPTIONAL_NAME = click.argument(
    "name", metavar="[NAME]", required=False, shell_complete=_profile_names
)


def main() -> None:
    """The console entry point."""
    import resource

    from sandbox.cli import (
        certificates,
        commands,
        correspondents,
        ending,
        image_commands,
        key_commands,
        recovery_commands,
    )

    # Secrets pass through this process: a crash must not write them to the disk. The hard limit
    # stays, because a libvirtd that starts with us sets its own and fails where it may not.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _ = (certificates, commands, correspondents, ending, image_commands, key_commands)
    _ = recovery_commands
    cli(prog_name="mailbox")
