"""Evolution inside a mailbox: hand over the desired state, start its session, follow it, close it.

Runs on the guest's own Python and standard library, as root; what touches Evolution's files is
`evolution_session.py`, which runs as its user.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

STATE_DIR = Path("/run/mailbox-client")
# What this program keeps for itself, out of reach of Evolution's user.
CONTROL_DIR = Path("/run/mailbox-client-control")
SESSION = "/usr/lib/mailbox/evolution_session.py"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = GROUP = 1000

READY_DEADLINE_S = 600.0
POLL_S = 0.1
LOCALES = {"en": "en_US.UTF-8", "de": "de_DE.UTF-8"}


def prepare(desired: Json, home: Path) -> None:
    """Put the desired state where the session looks for it, and trust the customer's servers."""
    CONTROL_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(STATE_DIR, USER, GROUP, follow_symlinks=False)
    (CONTROL_DIR / "home").write_text(str(home))
    trust(desired.get("ca") or [])
    with _acting_as_user():
        (STATE_DIR / "quit").unlink(missing_ok=True)
        (STATE_DIR / "wake").unlink(missing_ok=True)
        # A new file, not a shorter one: who follows the old one must not see half of the new.
        _write(STATE_DIR / "status.jsonl", b"")
        _write(STATE_DIR / "desired.json", json.dumps(desired).encode())


def start(desired: Json) -> subprocess.Popen[bytes] | None:
    """Start Evolution's session; None when it runs already (it picks the new state up)."""
    if _running() is not None:
        return None
    home = Path((CONTROL_DIR / "home").read_text())
    with (CONTROL_DIR / "client.log").open("wb") as log:
        child = subprocess.Popen(
            [SESSION],
            env=environment(desired, home),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # outlives the command that started it
            user=USER,
            group=GROUP,
            extra_groups=[],
        )
    (CONTROL_DIR / "client.pid").write_text(str(child.pid))
    return child


def wake() -> Iterator[Json]:
    """Tell the session that time has passed; yield what it says up to `ready`."""
    with _acting_as_user():
        _write(STATE_DIR / "status.jsonl", b"")
        _write(STATE_DIR / "wake", b"")
    yield from events()


def events() -> Iterator[Json]:
    """Yield the session's progress up to `ready` or the first error."""
    deadline = time.monotonic() + READY_DEADLINE_S
    seen = 0
    while time.monotonic() < deadline:
        alive = _running() is not None  # asked before reading: its last words still count
        lines = _complete_lines()
        for event in map(_parse, lines[seen:]):
            yield {**event, "uptime": round(time.monotonic(), 2)}
            if event.get("event") == "error" or event.get("name") == "ready":
                return
        seen = len(lines)
        if not alive:
            yield _error("Evolution ended before it was ready." + _last_words())
            return
        time.sleep(POLL_S)
    yield _error("Evolution was not ready in time." + _last_words())


def close(deadline_s: float) -> bool:
    """End Evolution and its session; True when they ended by themselves.

    A window in which something is being written asks what to do with it, and nobody answers:
    Evolution keeps a copy of such a text every minute, and offers it at its next start.
    """
    pid = _running()
    if pid is None:
        return True
    with _acting_as_user():
        _write(STATE_DIR / "quit", b"")
    if _wait_gone(pid, time.monotonic() + deadline_s):
        return True
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        if _wait_gone(pid, time.monotonic() + 5):
            break
    return False


def trust(authorities: list[str]) -> None:
    """Trust these beside the image's own; what was trusted before and is not listed, no more.

    The list of the image is changed in memory only: the root file system dies with the machine.
    """
    original = CONTROL_DIR / "authorities"
    if not original.exists():
        shutil.copyfile(AUTHORITIES, original)
    new = AUTHORITIES.with_name("mailbox.new")
    new.write_text("\n".join([original.read_text(), *authorities]) + "\n")
    new.chmod(0o644)
    new.replace(AUTHORITIES)


def environment(desired: Json, home: Path) -> dict[str, str]:
    """A clean environment; services that the bus starts have it too."""
    language = str(desired.get("language") or "en")
    driven = {} if desired.get("marionette") else {"NO_AT_BRIDGE": "1", "GTK_A11Y": "none"}
    return {
        "HOME": str(home),
        "USER": home.name,
        "LOGNAME": home.name,
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
        "LANG": LOCALES.get(language, "C.UTF-8"),
        "TZ": str(desired.get("time_zone") or "UTC"),
        "DISPLAY": ":0",
        "XDG_RUNTIME_DIR": str(STATE_DIR),
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={STATE_DIR}/bus",
        "GDK_BACKEND": "x11",
        "GSETTINGS_BACKEND": "keyfile",  # no settings daemon
        "GIO_USE_VFS": "local",
        # There is only `lo`: else it says that it is offline.
        "GIO_USE_NETWORK_MONITOR": "base",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "COGL_DRIVER": "nop",  # maps in the address book want OpenGL, which is not there
        "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
        "WEBKIT_DISABLE_DMABUF_RENDERER": "1",
        "MAILBOX_STATE_DIR": str(STATE_DIR),
        **driven,
    }


@contextlib.contextmanager
def _acting_as_user() -> Iterator[None]:
    """Touch what Evolution's user controls with that user's rights only.

    A link that a taken-over client lays there leads no further than it could go by itself.
    """
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(GROUP)
    os.seteuid(USER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner only."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(content)
    draft.replace(path)


def _running() -> int | None:
    """The process number of the session that we started, while it runs."""
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
    return pid if SESSION.encode() in argv else None


def _wait_gone(pid: int, end: float) -> bool:
    while time.monotonic() < end:
        if _running() != pid:
            return True
        time.sleep(POLL_S)
    return _running() != pid


def _complete_lines() -> list[str]:
    with _acting_as_user():
        try:
            text = (STATE_DIR / "status.jsonl").read_text(errors="replace")
        except OSError:
            return []
    return text.rpartition("\n")[0].splitlines()


def _parse(line: str) -> Json:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else _error("Unreadable status line.")


def _error(message: str) -> Json:
    return {"event": "error", "code": "client-failed", "message": message}


def _last_words() -> str:
    try:
        lines = (CONTROL_DIR / "client.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " Its last words: " + " / ".join(lines[-3:]) if lines else ""
