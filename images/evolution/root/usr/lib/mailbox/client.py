"""Evolution inside a mailbox: hand over the desired state, start its session, follow it, close it.

Runs on the guest's own Python and standard library, as root; what touches Evolution's files is
`evolution_session.py`, which runs as its user.  What is not Evolution's own is in `program.py`.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import program
from program import CONTROL_DIR, STATE_DIR

Json = dict[str, Any]

SESSION = "/usr/lib/mailbox/evolution_session.py"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
EVOLUTION = program.Program("Evolution", mark=SESSION)
# Evolution takes a default route for being online (GNetworkMonitor). This one leads nowhere: the
# machine has no interface but `lo`.
ROUTE = ("default", "dev", "lo")
OFFLINE_DEADLINE_S = 5.0
_ESTABLISHED = "01"


def prepare(desired: Json, home: Path) -> None:
    """Put the desired state where the session looks for it, and trust the customer's servers."""
    program.claim(home)
    trust(desired.get("ca") or [])
    _be_online(True)
    program.hand_over(desired)


def local_mail(home: Path) -> Path:
    """Where mail is that no server has: "On This Computer"."""
    return home / ".local/share/evolution/mail"


def start(desired: Json) -> subprocess.Popen[bytes] | None:
    """Start Evolution's session; None when it runs already (it picks the new state up)."""
    home = Path((CONTROL_DIR / "home").read_text())
    return EVOLUTION.start([SESSION], environment(desired, home))


def check(request: Json) -> Iterator[Json]:
    """Have the session try keys; yield a `checked` for each of them, up to `ready`."""
    return EVOLUTION.check(request)


def events() -> Iterator[Json]:
    """Yield the session's progress up to `ready` or the first error."""
    return EVOLUTION.events()


def doze() -> None:
    """Let Evolution go offline, so that it ends its connections before they break.

    One that breaks is not made again before the next look at all accounts, minutes later.
    """
    _be_online(False)
    end = time.monotonic() + OFFLINE_DEADLINE_S
    while _has_connections() and time.monotonic() < end:
        time.sleep(0.1)


def wake() -> Iterator[Json]:
    """Let Evolution go online; yield what the session says up to `ready`."""
    _be_online(True)
    return EVOLUTION.wake()


def _be_online(wished: bool) -> None:
    change = "replace" if wished else "del"
    subprocess.run(
        ["busybox", "ip", "route", change, *ROUTE], stderr=subprocess.DEVNULL, check=False
    )


def _has_connections() -> bool:
    """Whether a program of the mail client's user is connected to anything (proc_net(5))."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:])
    return any(words[3] == _ESTABLISHED and words[7] != "0" for words in lines)


def close(deadline_s: float) -> bool:
    """End Evolution and its session; True when they ended by themselves.

    A window in which something is being written asks what to do with it, and nobody answers:
    Evolution keeps a copy of such a text every minute, and offers it at its next start.
    """
    pid = EVOLUTION.running()
    if pid is None:
        return True
    EVOLUTION.ask_to_quit()
    if EVOLUTION.wait_gone(pid, time.monotonic() + deadline_s):
        return True
    EVOLUTION.kill(pid)
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
    """The environment of the session; services that the bus starts have it too."""
    driven = {} if desired.get("marionette") else {"NO_AT_BRIDGE": "1", "GTK_A11Y": "none"}
    return program.environment(desired, home) | {
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={STATE_DIR}/bus",
        "GSETTINGS_BACKEND": "keyfile",  # no settings daemon
        "GIO_USE_VFS": "local",
        # There is only `lo`: else it says that it is offline.
        "GIO_USE_NETWORK_MONITOR": "netlink",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "COGL_DRIVER": "nop",  # maps in the address book want OpenGL, which is not there
        "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
        "WEBKIT_DISABLE_DMABUF_RENDERER": "1",
        **driven,
    }
