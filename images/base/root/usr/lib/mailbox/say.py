"""Events for the host, one JSON line each, and what stops a command."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path


class FailureError(Exception):
    """A command cannot go on; the code is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def uptime() -> float:
    """Seconds since the kernel started."""
    return float(Path("/proc/uptime").read_text("ascii").split()[0])


def event(fields: Mapping[str, object]) -> None:
    """Send one event."""
    print(json.dumps(fields), flush=True)


def phase(name: str) -> None:
    """Say that a phase is done."""
    event({"event": "phase", "name": name, "uptime": uptime()})


def warning(code: str, message: str) -> None:
    """Say that something is not as wished, and that the work goes on."""
    event({"event": "warning", "code": code, "message": message})


def error(code: str, message: str) -> None:
    """Say why the command ends here, to the host and on the console."""
    event({"event": "error", "code": code, "message": message})
    try:
        Path("/dev/console").write_text(f"mailbox: {code}: {message}\n", "utf-8")
    except OSError:
        print("mailbox: no console", file=sys.stderr)
