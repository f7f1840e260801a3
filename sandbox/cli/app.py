"""`mailbox`: the commands."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any

import click

from sandbox import __version__
from sandbox.cli.output import Printer
from sandbox.model.errors import Exit, MailboxError

# Each command: its module and its sentence in `mailbox --help`, in the order a mailbox meets them.
# No command, and not the help, waits for another command's module.
COMMANDS = {
    "doctor": (
        "commands",
        "Say what this computer can do and what is missing, each with its remedy.",
    ),
    "image": (
        "image_commands",
        "Build and look after the guest systems that all mailboxes of a client share.",
    ),
    "onboard": ("making", "Make a mailbox: its keys, its encrypted volume, its account."),
    "open": ("commands", "Open a mailbox: start its machine, let it go on, or show it again."),
    "switch": ("commands", "Open a mailbox, and suspend those others whose profile says so."),
    "close": ("commands", "Close a mailbox: its machine is gone, its key out of memory."),
    "suspend": ("commands", "Suspend a mailbox: its machine's memory is put away, encrypted."),
    "list": ("commands", "List all mailboxes and their states."),
    "status": ("commands", "Tell the state of one mailbox closely, or of all."),
    "show": ("commands", "Show what is written down about a mailbox (there are no secrets in it)."),
    "edit": (
        "commands",
        "Edit a mailbox's profile in $EDITOR; the old one stays when the new one is not valid.",
    ),
    "password": (
        "changing",
        "Store a mail password that was changed, once the servers take it; tell the mail client.",
    ),
    "keys": (
        "own_key_commands",
        "Look after a mailbox's OpenPGP keys: its own and its correspondents'.",
    ),
    "run": ("commands", "Run a command in an open mailbox's machine."),
    "screenshot": ("commands", "Save a picture (PNG) of what an open mailbox's machine shows."),
    "log": ("commands", "Show the journal: what was done to a mailbox and when."),
    "repair": (
        "commands",
        "Finish or undo what a killed command left, in one mailbox or in all.",
    ),
    "recover": ("recovery_commands", "Bring a mailbox back with its recovery code."),
    "recovery-code": (
        "recovery_commands",
        "Make a recovery code, or with --replace a new one; the mailbox must be closed.",
    ),
    "header-backup": (
        "recovery_commands",
        "Keep a copy of the volume's header beside the volume, for `repair`.",
    ),
    "retain": (
        "ending",
        "Close a mailbox for use and keep it until a day, such as the law wants it.",
    ),
    "shred": ("ending", "Destroy a mailbox for good: first its keys, then its volume and records."),
    "certificate": (
        "certificates",
        "Show the certificate of a shredded mailbox, write it to a file, or verify one.",
    ),
    "completion": ("commands", "Print the completion script of a shell."),
}


class Commands(click.Group):
    """The commands; one that is in the table is loaded when it is called."""

    def __init__(
        self, *given: Any, table: Mapping[str, tuple[str, str]] | None = None, **attributes: Any
    ) -> None:
        super().__init__(*given, **attributes)
        self._table = table or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Those of the table in its order, then others as they were added."""
        return [*self._table, *(name for name in self.commands if name not in self._table)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, with its module."""
        if name in self._table and name not in self.commands:
            importlib.import_module(f"sandbox.cli.{self._table[name][0]}")
        return super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, with whole sentences, and without loading a command."""
        rows = [(name, self._sentence(name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([row for row in rows if row[1]])

    def _sentence(self, name: str) -> str:
        if name in self._table:
            return self._table[name][1]
        command = self.commands[name]
        return "" if command.hidden else command.get_short_help_str(limit=200)

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


@click.group(cls=Commands, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
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

    # Secrets pass through this process: a crash must not write them to the disk. The hard limit
    # stays, because a libvirtd that starts with us sets its own and fails where it may not.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    cli(prog_name="mailbox")
