"""Thunderbird inside a mailbox: hand over the desired state, start it, follow it, close it.

Runs on the guest's own Python and standard library.  What is not Thunderbird's own is in
`program.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import program
from program import STATE_DIR

Json = dict[str, Any]

GNUPG_DIR = STATE_DIR / "gnupg"
EXECUTABLE = os.environ.get("MAILBOX_THUNDERBIRD", "/usr/lib/thunderbird/thunderbird")
THUNDERBIRD = program.Program("Thunderbird", mark="--profile")
# Not on the volume: every machine begins with what the image's build left here (96-first-start),
# and what a taken-over client puts among its compiled scripts ends with the machine.
CACHE_DIR = Path(os.environ.get("MAILBOX_CACHE_DIR", "/var/cache/mailbox-client"))
# A profile without it counts as another version's, and the scripts are thrown away.
COMPATIBILITY = Path(os.environ.get("MAILBOX_COMPATIBILITY", "/usr/lib/mailbox/compatibility.ini"))


def prepare(desired: Json, home: Path) -> None:
    """Put the desired state where Thunderbird looks for it, and clear what a crash left behind."""
    program.claim(home)
    running = THUNDERBIRD.running() is not None
    with program.acting_as_user():
        profile = profile_folder(home)
        profile.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not running:
            _remove_stale_locks(profile)
            _fit_to_cache(profile)
        _prepare_gnupg(desired)
    program.hand_over(desired)


def start(desired: Json) -> subprocess.Popen[bytes] | None:
    """Start Thunderbird on its profile; None when it runs already (it picks the new state up)."""
    home = Path((program.CONTROL_DIR / "home").read_text())
    return THUNDERBIRD.start(command(desired, home), environment(desired, home))


def check(request: Json) -> Iterator[Json]:
    """Have the running Thunderbird try keys; yield a `checked` for each of them, up to `ready`."""
    return THUNDERBIRD.check(request)


def events() -> Iterator[Json]:
    """Yield Thunderbird's progress up to `ready` or the first error."""
    return THUNDERBIRD.events()


def doze() -> None:
    """Tell the running Thunderbird that the machine is about to be put away."""
    THUNDERBIRD.doze()


def wake() -> Iterator[Json]:
    """Tell the running Thunderbird that time has passed; yield what it says up to `ready`."""
    return THUNDERBIRD.wake()


def close(deadline_s: float) -> bool:
    """End Thunderbird and wait; True when it ended by itself, False when it had to be killed.

    It is asked first, because it writes its databases and settings then, and keeps what is being
    written as a draft; next its windows are closed, as a person would; only then it is killed.
    """
    pid = THUNDERBIRD.running()
    if pid is None:
        return True
    end = time.monotonic() + deadline_s
    THUNDERBIRD.ask_to_quit()
    if THUNDERBIRD.wait_gone(pid, time.monotonic() + deadline_s * 0.7):
        return True
    while time.monotonic() < end:
        _close_windows()
        if THUNDERBIRD.wait_gone(pid, min(end, time.monotonic() + 2)):
            return True
    THUNDERBIRD.kill(pid)
    return False


def profile_folder(home: Path) -> Path:
    """The one Thunderbird profile of a mailbox."""
    return home / ".thunderbird" / "mailbox"


def local_mail(home: Path) -> Path:
    """Where mail is that no server has; Thunderbird syncs none of it (MboxMsgOutputStream)."""
    return profile_folder(home) / "Mail"


def command(desired: Json, home: Path) -> list[str]:
    """Thunderbird's command line."""
    profile = str(profile_folder(home))
    argv = [EXECUTABLE, "--profile", profile, "--new-instance", "--allow-downgrade"]
    if desired.get("marionette"):
        argv += ["-marionette", "-remote-allow-system-access"]
    return argv


def environment(desired: Json, home: Path) -> dict[str, str]:
    """An environment without anything that makes Thunderbird look for what is not there."""
    return program.environment(desired, home) | {
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",  # else each library starts a bus of its own
        "NO_AT_BRIDGE": "1",
        "GTK_A11Y": "none",
        "MOZ_AVOID_OPENGL_ALTOGETHER": "1",  # there is no GPU; asking for one takes a process
        "MOZ_CRASHREPORTER_DISABLE": "1",
        "MAILBOX_LANGUAGE": program.language(desired),
        "GNUPGHOME": str(GNUPG_DIR),
        **_cache(),
    }


def _cache() -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(CACHE_DIR)} if CACHE_DIR.is_dir() else {}


def _fit_to_cache(profile: Path) -> None:
    """Let a new profile use the scripts that the image brings."""
    note = profile / COMPATIBILITY.name
    if COMPATIBILITY.exists() and not note.exists():
        program.write(note, COMPATIBILITY.read_bytes())


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
    program.write(GNUPG_DIR / "gpg.conf", b"no-autostart\ntrust-model always\n")
    gnupg = ["--homedir", str(GNUPG_DIR)]
    listing = ["/usr/bin/gpgconf", *gnupg, "--list-dirs", "agent-socket"]
    agent = Path(program.run_as_user(listing).decode().strip())
    agent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # GnuPG follows such a file to the real socket (libassuan, "socket redirection").
    program.write(agent, f"%Assuan%\nsocket={openpgp['agent']}\n".encode())
    public = "\n".join(str(key["public"]) for key in keys).encode()
    program.run_as_user(["/usr/bin/gpg", *gnupg, "--batch", "--quiet", "--import"], public)


def _remove_stale_locks(profile: Path) -> None:
    """A lock of a machine that was switched off names a process number that may be in use again."""
    for name in ("lock", ".parentlock"):
        (profile / name).unlink(missing_ok=True)


def _close_windows() -> None:
    """Ask every window of Thunderbird to close, the newest first."""
    wmctrl = shutil.which("wmctrl") or "/usr/bin/wmctrl"
    env = {"PATH": "/usr/bin:/bin", **program.screen()}
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listing = subprocess.run(
            [wmctrl, "-lx"], env=env, capture_output=True, text=True, timeout=5, check=False
        )
        windows = [line.split()[:3] for line in listing.stdout.splitlines()]
        for window, _, kind in reversed([w for w in windows if len(w) == 3]):
            if "thunderbird" in kind.lower():
                subprocess.run([wmctrl, "-i", "-c", window], env=env, timeout=5, check=False)
