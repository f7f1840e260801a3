"""Where a recovery code goes: to the terminal, a descriptor or a new file. Never to a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from sandbox.cli.output import Printer, has_terminal
from sandbox.cli.passwords import first_line
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.recovery import parse_code
from sandbox.state import files

CODE_TO = click.option(
    "--recovery-code-to",
    "code_to",
    metavar="FD|FILE",
    help="Write the recovery code there (a new file) instead of showing it on the terminal.",
)
_SHOWN = """
  The recovery code of {name}:

      {code}

  It opens this mailbox when the keyring of this computer is lost. It is shown only now and kept
  nowhere on this computer: write it down, and keep it where the computer is not.

"""


def recipient(printer: Printer, name: str, code_to: str | None) -> Callable[[str], None]:
    """Who takes the code; checked now, before anything is done.

    Raises:
        MailboxError: `recovery-code-unseen`; InvalidInputError for a descriptor or file.
    """
    if code_to is None:
        return _to_terminal(printer, name)
    if code_to.isdecimal():
        return _to_descriptor(int(code_to), printer)
    return _to_file(Path(code_to).expanduser())


def _to_terminal(printer: Printer, name: str) -> Callable[[str], None]:
    if not has_terminal():
        raise MailboxError(
            "Nobody is here to see the recovery code; nothing was changed.",
            resolution="Say --recovery-code-to with a descriptor or a new file.",
            code="recovery-code-unseen",
            exit_code=Exit.USAGE,
        )
    return lambda code: printer.to_terminal(_SHOWN.format(name=name, code=code))


def _to_descriptor(descriptor: int, printer: Printer) -> Callable[[str], None]:
    try:
        os.fstat(descriptor)
    except OSError as error:
        raise _refused(f"{descriptor}: {error.strerror}") from None
    if descriptor == 1 and printer.as_json:
        raise _refused("1: standard output carries the JSON report")

    def write(code: str) -> None:
        with files.readable_errors(Path(f"/dev/fd/{descriptor}")):
            os.write(descriptor, f"{code}\n".encode())

    return write


def _to_file(path: Path) -> Callable[[str], None]:
    if path.exists() or path.is_symlink():
        raise _refused(f"{path} is there already; it was not touched")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _refused(f"{path.parent} is no folder that can be written to")

    def write(code: str) -> None:
        files.create(path, f"{code}\n".encode())

    return write


def _refused(problem: str) -> InvalidInputError:
    return InvalidInputError("The input", [f"--recovery-code-to: {problem}"])


def take_code(from_stdin: bool) -> str:
    """The recovery code in its one form, from standard input or a hidden prompt.

    Raises:
        MailboxError: `recovery-code-missing`, or `recovery-code-mistyped` with the place.
    """
    if from_stdin:
        return _checked(first_line(sys.stdin.buffer))
    if not sys.stdin.isatty():
        raise MailboxError(
            "The recovery code was not given; nothing was changed.",
            resolution="Give it on standard input with --code-stdin.",
            code="recovery-code-missing",
            exit_code=Exit.USAGE,
        )

    def typed(text: str) -> str:
        try:
            return parse_code(text)
        except ValueError as error:
            raise click.UsageError(f"{error}; nothing was changed") from None

    return str(click.prompt("Recovery code", hide_input=True, err=True, value_proc=typed))


def _checked(text: str) -> str:
    try:
        return parse_code(text)
    except ValueError as error:
        raise MailboxError(
            f"This is no recovery code: {error}. Nothing was changed.",
            resolution="Compare it with the paper.",
            code="recovery-code-mistyped",
            exit_code=Exit.USAGE,
        ) from None
