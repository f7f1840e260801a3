"""What every mail client's `client.py` needs: a program of the mail user's, led by files.

The program takes `desired.json` in STATE_DIR and deletes it, appends its events to `status.jsonl`,
and does what the files `quit`, `doze`, `wake` and `check.json` ask. Every path can be moved by the
environment, so that the same files work outside of a guest.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

STATE_DIR = Path(os.environ.get("MAILBOX_STATE_DIR", "/run/mailbox-client"))
# What root keeps for itself, out of reach of the mail user.
CONTROL_DIR = STATE_DIR.with_name(STATE_DIR.name + "-control")
USER = os.environ.get("MAILBOX_USER", "mail-user")
DISPLAY = os.environ.get("DISPLAY") or ":0"

READY_DEADLINE_S = float(os.environ.get("MAILBOX_READY_DEADLINE", "600"))
POLL_S = 0.05
KILL_DEADLINE_S = 5.0
LOCALES = {"en": "en_US.UTF-8", "de": "de_DE.UTF-8"}


def environment(desired: Json, home: Path) -> dict[str, str]:
    """A clean environment for a program of the mail user's, to which a client adds its own."""
    return {
        "HOME": str(home),
        "USER": home.name,
        "LOGNAME": home.name,
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
        "LANG": LOCALES.get(language(desired), "C.UTF-8"),
        "TZ": str(desired.get("time_zone") or "UTC"),
        "XDG_RUNTIME_DIR": str(STATE_DIR),
        "MAILBOX_STATE_DIR": str(STATE_DIR),
        **screen(),
    }


def language(desired: Json) -> str:
    """The language of the desired state."""
    return str(desired.get("language") or "en")


def screen() -> dict[str, str]:
    """What leads a program to the machine's screen."""
    authority = {name: os.environ[name] for name in ("XAUTHORITY",) if name in os.environ}
    return {"DISPLAY": DISPLAY, "GDK_BACKEND": "x11", **authority}


def claim(home: Path) -> None:
    """Make the folders through which the program is led."""
    CONTROL_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    account = _mail_user()
    if account is not None:  # its parent is root's, so nobody else can have put a link there
        os.chown(STATE_DIR, account.pw_uid, account.pw_gid, follow_symlinks=False)
    write(CONTROL_DIR / "home", str(home).encode())


def hand_over(desired: Json) -> None:
    """Put the desired state where the program looks for it, and take back what was asked before."""
    with acting_as_user():
        for name in ("quit", "doze", "wake", "check.json"):
            (STATE_DIR / name).unlink(missing_ok=True)
        # A new file, not a shorter one: who follows the old one must not see half of the new.
        write(STATE_DIR / "status.jsonl", b"")
        write(STATE_DIR / "desired.json", json.dumps(desired).encode())


@dataclass(frozen=True)
class Program:
    """The one program that is a mail client's, whichever command of the host is asking."""

    name: str
    # One of the arguments that it is started with, and nothing else in the guest is.
    mark: str

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Start it as the mail user; None when it runs already."""
        if self.running() is not None:
            return None
        with (CONTROL_DIR / "client.log").open("wb") as log:
            child = subprocess.Popen(
                argv,
                env=env,
                cwd=(CONTROL_DIR / "home").read_text(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # outlives the command that started it
                **_as_user(),
            )
        write(CONTROL_DIR / "client.pid", str(child.pid).encode())
        return child

    def running(self) -> int | None:
        """Its process number, while it runs."""
        try:
            pid = int((CONTROL_DIR / "client.pid").read_text())
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        if status == "Z":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            return None
        # Between two programs, when it starts itself anew, there is no command line.
        return pid if self.mark.encode() in argv or argv == [b""] else None

    def events(self) -> Iterator[Json]:
        """Yield its progress up to `ready` or the first error."""
        deadline = time.monotonic() + READY_DEADLINE_S
        seen = 0
        while time.monotonic() < deadline:
            alive = self.running() is not None  # asked before reading: its last words still count
            lines = _complete_lines(STATE_DIR / "status.jsonl")
            for event in map(_parse, lines[seen:]):
                yield {**event, "uptime": round(time.monotonic(), 2)}
                if event.get("event") == "error" or event.get("name") == "ready":
                    return
            seen = len(lines)
            if not alive:
                yield _failed(f"{self.name} ended before it was ready." + _last_words())
                return
            time.sleep(POLL_S)
        yield _failed(f"{self.name} was not ready in time." + _last_words())

    def doze(self) -> None:
        """Tell it that the machine is about to be put away."""
        with acting_as_user():
            write(STATE_DIR / "doze", b"")

    def wake(self) -> Iterator[Json]:
        """Tell it that time has passed; yield what it says up to `ready`."""
        with acting_as_user():
            write(STATE_DIR / "status.jsonl", b"")
            write(STATE_DIR / "wake", b"")
        yield from self.events()

    def check(self, request: Json) -> Iterator[Json]:
        """Have it try the keys of a request; yield what it says up to `ready`."""
        with acting_as_user():
            write(STATE_DIR / "status.jsonl", b"")
            write(STATE_DIR / "check.json", json.dumps(request).encode())
        yield from self.events()

    def ask_to_quit(self) -> None:
        """Tell it to end by itself."""
        with acting_as_user():
            write(STATE_DIR / "quit", b"")

    def wait_gone(self, pid: int, end: float) -> bool:
        """Whether it is gone at `end` of the monotonic clock."""
        while time.monotonic() < end:
            if self.running() != pid:
                return True
            time.sleep(POLL_S)
        return self.running() != pid

    def kill(self, pid: int) -> None:
        """End it and what it started, by force."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
            if self.wait_gone(pid, time.monotonic() + KILL_DEADLINE_S):
                break


@contextlib.contextmanager
def acting_as_user() -> Iterator[None]:
    """Touch what the mail user controls with that user's rights only.

    A link that a taken-over client lays there leads no further than it could go by itself.
    """
    account = _mail_user()
    if account is None:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def run_as_user(command: Sequence[str], data: bytes = b"") -> bytes:
    """Run a program for good as the user that we act as only for a while; returns its output."""
    done = subprocess.run(
        command,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(STATE_DIR), "LANG": "C.UTF-8"},
        timeout=120,
        check=True,
        **_as_acted_user(),
    )
    return done.stdout


def write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner only."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())  # what lies on the volume may meet a power cut
    draft.replace(path)


def _mail_user() -> pwd.struct_passwd | None:
    """The user that the client runs as, when it is another one than we are."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _as_user() -> dict[str, Any]:
    account = _mail_user()
    return {**_ids(account), "extra_groups": []} if account else {}


def _as_acted_user() -> dict[str, Any]:
    """As above, where only the effective user is the mail user: the other groups are gone."""
    acting = os.getuid() == 0 and os.geteuid() != 0
    return _ids(pwd.getpwuid(os.geteuid())) if acting else {}


def _ids(account: pwd.struct_passwd) -> dict[str, Any]:
    return {"user": account.pw_uid, "group": account.pw_gid}


def _complete_lines(path: Path) -> list[str]:
    with acting_as_user():
        try:
            return path.read_text(errors="replace").rpartition("\n")[0].splitlines()
        except OSError:
            return []


def _parse(line: str) -> Json:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else _failed("Unreadable status line.")


def _failed(message: str) -> Json:
    return {"event": "error", "code": "client-failed", "message": message}


def _last_words() -> str:
    try:
        lines = (CONTROL_DIR / "client.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " Its last words: " + " / ".join(lines[-3:]) if lines else ""
