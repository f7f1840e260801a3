"""The one module that prints. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.model.errors import Exit, MailboxError

if TYPE_CHECKING:
    from sandbox.lifecycle.house import Result

# The terminal itself, whatever the streams are redirected to (tty(4)).
TERMINAL = "/dev/tty"


def has_terminal() -> bool:
    """Whether a person sits at a terminal of this command."""
    try:
        os.close(os.open(TERMINAL, os.O_WRONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Printer:
    """Prints for one command, its progress too; `as_json` keeps stdout to one document."""

    def __init__(self, *, as_json: bool = False, verbose: int = 0) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self._status: Any = None

    # Progress (sandbox.lifecycle.engine.Progress)

    def step(self, title: str) -> None:
        """Say what is being done now."""
        if self._status is not None:
            self._status.update(title)
            if self.verbose:
                self._status.console.print(f"  {title}", markup=False, highlight=False)
        elif self.verbose or not self.as_json:
            self.note(f"{title} ...")

    def detail(self, text: str) -> None:
        """Say how far the current step is, to those who want to know."""
        if self.verbose:
            self.note(f"    {text}")

    def warn(self, text: str) -> None:
        """Say what the user should know though nothing failed."""
        self.note(f"Warning: {text}")

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show progress as a spinner on a terminal, as plain lines elsewhere."""
        if not sys.stderr.isatty() or self.as_json:
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status("") as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    # Results and errors

    def note(self, text: str) -> None:
        """A line for the person, not for a program."""
        if self._status is not None:
            self._status.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def to_terminal(self, text: str) -> None:
        """Text for the person's eyes alone: past every redirection, and so past every log."""
        with self.paused(), Path(TERMINAL).open("w") as terminal:
            terminal.write(text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No spinner while something is shown or asked."""
        if self._status is not None:
            self._status.stop()
        try:
            yield
        finally:
            if self._status is not None:
                self._status.start()

    def line(self, text: str) -> None:
        """A line of the command's own result."""
        print(text)

    def document(self, value: Any) -> None:
        """A JSON document; in ASCII, so that text from a guest cannot steer a terminal."""
        print(json.dumps(value, indent=2, default=str))

    def result(self, result: Result) -> None:
        """What a verb did."""
        if self.as_json:
            self.document(_result_fields(result))
            return
        self.line(result.summary)
        if self.verbose:
            for name, seconds in dict(result.facts.get("seconds") or {}).items():
                self.line(f"  {name:<12} {seconds:8.2f} s")

    def error(self, error: MailboxError) -> None:
        """What went wrong, what it means, what to do."""
        if self.as_json:
            self.document(_error_fields(error))
            return
        self.note(f"Error: {error.brief}")
        for text in (error.details, error.resolution):
            if text:
                self.note(text)

    @contextmanager
    def results(self, verb: str, nothing: str) -> Iterator[Results]:
        """What a verb did to several: a line each as it comes, or all in one JSON document."""
        gathered = Results(self)
        yield gathered
        if self.as_json:
            ok = gathered.exit_code == Exit.OK
            self.document({"ok": ok, "verb": verb, "results": gathered.documents})
        elif not gathered.documents:
            self.line(nothing)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under headings, aligned; plain text, so that it can be piped."""
        widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
        for row in (headings, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.line("  ".join(cells).rstrip())

    def fields(self, values: Mapping[str, str]) -> None:
        """Names and values, one a line."""
        width = max(map(len, values), default=0)
        for name, value in values.items():
            first, *more = str(value).splitlines() or [""]
            self.line(f"{name:<{width}}  {first}".rstrip())
            for line in more:
                self.line(f"{'':<{width}}  {line}")


class Kept(io.BytesIO):
    """Keeps what a guest writes, up to `LIMIT` bytes, for a JSON report."""

    LIMIT = 16 * 1024 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    def write(self, untrusted_data: Any) -> int:
        """Keep it, or the part that still fits."""
        room = self.LIMIT - self.tell()
        self.cut = self.cut or len(untrusted_data) > room
        super().write(untrusted_data[:room])
        return len(untrusted_data)

    @property
    def text(self) -> str:
        """All that was kept; what is not UTF-8 is replaced."""
        return self.getvalue().decode(errors="replace")


class Results:
    """Gathers what a verb did to several; `exit_code` is the highest of those that failed."""

    def __init__(self, printer: Printer) -> None:
        self.documents: list[dict[str, Any]] = []
        self.exit_code: int = Exit.OK
        self._printer = printer

    def add(self, result: Result) -> None:
        """One that went well."""
        self.documents.append(_result_fields(result))
        if not self._printer.as_json:
            self._printer.result(result)

    def failed(self, name: str, error: MailboxError) -> None:
        """One that failed; the others go on."""
        self.documents.append({**_error_fields(error), "name": name})
        self.exit_code = max(self.exit_code, error.exit_code)
        if not self._printer.as_json:
            self._printer.error(error)


def _result_fields(result: Result) -> dict[str, Any]:
    return {"ok": True, **asdict(result)}


def _error_fields(error: MailboxError) -> dict[str, Any]:
    fields = ("code", "brief", "details", "resolution")
    return {"ok": False, "error": {name: getattr(error, name) for name in fields}}
