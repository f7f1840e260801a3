"""Thunderbird inside a mailbox: hand over the desired state, start it, follow it, close it.

Runs on the guest's own Python and standard library.  Every path can be moved by the environment,
so that the same file works outside of a guest.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]

STATE_DIR = Path(os.environ.get("MAILBOX_STATE_DIR", "/run/mailbox-client"))
# What this program keeps for itself, out of reach of Thunderbird's user.
CONTROL_DIR = STATE_DIR.with_name(STATE_DIR.name + "-control")
GNUPG_DIR = STATE_DIR / "gnupg"
PROGRAM = os.environ.get("MAILBOX_THUNDERBIRD", "/usr/lib/thunderbird/thunderbird")
USER = os.environ.get("MAILBOX_USER", "mail-user")
DISPLAY = os.environ.get("DISPLAY") or ":0"

READY_DEADLINE_S = float(os.environ.get("MAILBOX_READY_DEADLINE", "600"))
POLL_S = 0.05
LOCALES = {"en": "en_US.UTF-8", "de": "de_DE.UTF-8"}


def prepare(desired: Json, home: Path) -> None:
    """Put the desired state where Thunderbird looks for it, and clear what a crash left behind."""
    CONTROL_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_state_folder()
    running = _running() is not None
    _write(CONTROL_DIR / "home", str(home).encode())
    with _acting_as_user():
        profile = profile_folder(home)
        profile.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not running:
            _remove_stale_locks(profile)
        (STATE_DIR / "quit").unlink(missing_ok=True)
        (STATE_DIR / "wake").unlink(missing_ok=True)
        _prepare_gnupg(desired)
        # A new file, not a shorter one: who follows the old one must not see half of the new.
        _write(STATE_DIR / "status.jsonl", b"")
        _write(STATE_DIR / "desired.json", json.dumps(desired).encode())


def start(desired: Json) -> subprocess.Popen[bytes] | None:
    """Start Thunderbird on its profile; None when it runs already (it picks the new state up)."""
    if _running() is not None:
        return None
    home = Path((CONTROL_DIR / "home").read_text())
    with (CONTROL_DIR / "client.log").open("wb") as log:
        child = subprocess.Popen(
            command(desired, home),
            env=environment(desired, home),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # outlives the command that started it
            **_as_user(),
        )
    _write(CONTROL_DIR / "client.pid", str(child.pid).encode())
    return child


def wake() -> Iterator[Json]:
    """Tell the running Thunderbird that time has passed; yield what it says up to `ready`."""
    with _acting_as_user():
        _write(STATE_DIR / "status.jsonl", b"")
        _write(STATE_DIR / "wake", b"")
    yield from events()


def events() -> Iterator[Json]:
    """Yield Thunderbird's progress up to `ready` or the first error."""
    deadline = time.monotonic() + READY_DEADLINE_S
    seen = 0
    while time.monotonic() < deadline:
        alive = _running() is not None  # asked before reading: its last words still count
        lines = _complete_lines(STATE_DIR / "status.jsonl")
        for event in map(_parse, lines[seen:]):
            yield {**event, "uptime": round(time.monotonic(), 2)}
            if event.get("event") == "error" or event.get("name") == "ready":
                return
        seen = len(lines)
        if not alive:
            yield _error("client-failed", "Thunderbird ended before it was ready." + _last_words())
            return
        time.sleep(POLL_S)
    yield _error("client-failed", "Thunderbird was not ready in time." + _last_words())


def close(deadline_s: float) -> bool:
    """End Thunderbird and wait; True when it ended by itself, False when it had to be killed.

    It is asked first, because it writes its databases and settings then, and keeps what is being
    written as a draft; next its windows are closed, as a person would; only then it is killed.
    """
    pid = _running()
    if pid is None:
        return True
    end = time.monotonic() + deadline_s
    with _acting_as_user():
        _write(STATE_DIR / "quit", b"")
    if _wait_gone(pid, time.monotonic() + deadline_s * 0.7):
        return True
    while time.monotonic() < end:
        _close_windows()
        if _wait_gone(pid, min(end, time.monotonic() + 2)):
            return True
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        if _wait_gone(pid, time.monotonic() + 5):
            break
    return False


def profile_folder(home: Path) -> Path:
    """The one Thunderbird profile of a mailbox."""
    return home / ".thunderbird" / "mailbox"


def command(desired: Json, home: Path) -> list[str]:
    """Thunderbird's command line."""
    argv = [PROGRAM, "--profile", str(profile_folder(home)), "--new-instance", "--allow-downgrade"]
    if desired.get("marionette"):
        argv += ["-marionette", "-remote-allow-system-access"]
    return argv


def environment(desired: Json, home: Path) -> dict[str, str]:
    """A clean environment, without anything that makes Thunderbird look for what is not there."""
    language = str(desired.get("language") or "en")
    return {
        "HOME": str(home),
        "USER": home.name,
        "LOGNAME": home.name,
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
        "LANG": LOCALES.get(language, "C.UTF-8"),
        "TZ": str(desired.get("time_zone") or "UTC"),
        "DISPLAY": DISPLAY,
        "XDG_RUNTIME_DIR": str(STATE_DIR),
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",  # else each library starts a bus of its own
        "GDK_BACKEND": "x11",
        "NO_AT_BRIDGE": "1",
        "GTK_A11Y": "none",
        "MOZ_AVOID_OPENGL_ALTOGETHER": "1",  # there is no GPU; asking for one takes a process
        "MOZ_CRASHREPORTER_DISABLE": "1",
        "MAILBOX_STATE_DIR": str(STATE_DIR),
        "MAILBOX_LANGUAGE": language,
        "GNUPGHOME": str(GNUPG_DIR),
    } | {name: os.environ[name] for name in ("XAUTHORITY",) if name in os.environ}


def _prepare_gnupg(desired: Json) -> None:
    """GnuPG for private keys that stay on the host: the public ones, and a way to the agent.

    It rests in memory and is made anew each time; GnuPG does nothing else here.
    """
    shutil.rmtree(GNUPG_DIR, ignore_errors=True)
    openpgp = desired.get("openpgp") or {}
    keys = [key for key in (openpgp.get("key"), *openpgp.get("retired", ())) if key]
    if openpgp.get("custody") != "host" or not keys:
        return
    GNUPG_DIR.mkdir(mode=0o700)
    _write(GNUPG_DIR / "gpg.conf", b"no-autostart\ntrust-model always\n")
    gnupg = ["--homedir", str(GNUPG_DIR)]
    listing = ["/usr/bin/gpgconf", *gnupg, "--list-dirs", "agent-socket"]
    agent = Path(_run_as_user(listing).decode().strip())
    agent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # GnuPG follows such a file to the real socket (libassuan, "socket redirection").
    _write(agent, f"%Assuan%\nsocket={openpgp['agent']}\n".encode())
    public = "\n".join(str(key["public"]) for key in keys).encode()
    _run_as_user(["/usr/bin/gpg", *gnupg, "--batch", "--quiet", "--import"], public)


def _run_as_user(command: list[str], data: bytes = b"") -> bytes:
    """Run a program for good as the user that we act as only for a while."""
    account = _mail_user_acted()
    who = {"user": account.pw_uid, "group": account.pw_gid} if account else {}
    done = subprocess.run(
        command,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(GNUPG_DIR), "LANG": "C.UTF-8"},
        timeout=120,
        check=True,
        **who,
    )
    return done.stdout


def _mail_user_acted() -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    return pwd.getpwuid(os.geteuid()) if os.geteuid() != 0 else None


def _mail_user() -> pwd.struct_passwd | None:
    """The user that Thunderbird runs as, when it is another one than we are."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _as_user() -> Mapping[str, Any]:
    account = _mail_user()
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def _acting_as_user() -> Iterator[None]:
    """Touch what Thunderbird's user controls with that user's rights only.

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


def _make_state_folder() -> None:
    STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    account = _mail_user()
    if account is not None:  # its parent is root's, so nobody else can have put a link there
        os.chown(STATE_DIR, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner only."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(content)
    draft.replace(path)


def _remove_stale_locks(profile: Path) -> None:
    """A lock of a machine that was switched off names a process number that may be in use again."""
    for name in ("lock", ".parentlock"):
        (profile / name).unlink(missing_ok=True)


def _running() -> int | None:
    """The process number of the Thunderbird that we started, while it runs."""
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
    # Between two programs, when Thunderbird starts itself anew, there is no command line.
    return pid if b"--profile" in argv or argv == [b""] else None


def _wait_gone(pid: int, end: float) -> bool:
    while time.monotonic() < end:
        if _running() != pid:
            return True
        time.sleep(POLL_S)
    return _running() != pid


def _close_windows() -> None:
    """Ask every window of Thunderbird to close, the newest first."""
    wmctrl = shutil.which("wmctrl") or "/usr/bin/wmctrl"
    env = {"PATH": "/usr/bin:/bin", "DISPLAY": DISPLAY} | {
        name: os.environ[name] for name in ("XAUTHORITY",) if name in os.environ
    }
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listing = subprocess.run(
            [wmctrl, "-lx"], env=env, capture_output=True, text=True, timeout=5, check=False
        )
        windows = [line.split()[:3] for line in listing.stdout.splitlines()]
        for window, _, kind in reversed([w for w in windows if len(w) == 3]):
            if "thunderbird" in kind.lower():
                subprocess.run([wmctrl, "-i", "-c", window], env=env, timeout=5, check=False)


def _complete_lines(path: Path) -> list[str]:
    with _acting_as_user():
        try:
            return path.read_text(errors="replace").rpartition("\n")[0].splitlines()
        except OSError:
            return []


def _parse(line: str) -> Json:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else _error("client-failed", "Unreadable status line.")


def _error(code: str, message: str) -> Json:
    return {"event": "error", "code": code, "message": message}


def _last_words() -> str:
    try:
        lines = (CONTROL_DIR / "client.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " Its last words: " + " / ".join(lines[-3:]) if lines else ""
