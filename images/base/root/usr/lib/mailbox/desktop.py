"""What of the desired state belongs to the whole guest: names, time zone, keyboard, the bar."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import say

ZONES = Path("/usr/share/zoneinfo")
X_SOCKET = Path("/tmp/.X11-unix/X0")
X_DEADLINE_S = 60.0
BAR_PID = Path("/run/mailbox/bar.pid")
BAR_HEIGHT = 26  # the same as the top margin in openbox's configuration
DISPLAY_USER = 990
ENVIRONMENT = {"DISPLAY": ":0", "PATH": "/usr/sbin:/usr/bin", "LANG": "C.UTF-8"}


def write_hosts(hosts: dict[str, str]) -> None:
    """Make the servers' names lead to the channel's forwards, and no other name anywhere."""
    lines = ["127.0.0.1 localhost", f"127.0.1.1 {socket.gethostname()}"]
    lines += [f"{address} {name}" for name, address in sorted(hosts.items())]
    new = Path("/etc/hosts.new")
    new.write_text("\n".join(lines) + "\n", "ascii")
    new.chmod(0o644)
    new.replace("/etc/hosts")


def set_time_zone(zone: str) -> None:
    """Set the time zone, or stay with UTC and say so."""
    if not (ZONES / zone).is_file():
        say.warning("time-zone", f"the time zone {zone} is not known here")
        zone = "Etc/UTC"
    new = Path("/etc/localtime.new")
    new.unlink(missing_ok=True)
    new.symlink_to(ZONES / zone)
    new.replace("/etc/localtime")
    Path("/etc/timezone").write_text(zone + "\n", "ascii")


def wait_for_screen() -> None:
    """Return when X answers."""
    end = time.monotonic() + X_DEADLINE_S
    while not X_SOCKET.exists():
        if time.monotonic() > end:
            raise say.FailureError("screen-missing", "the screen of the machine did not start")
        time.sleep(0.1)


def set_keyboard(layout: str) -> None:
    """Set the keyboard's layout, or stay with the former one and say so."""
    done = subprocess.run(
        ["setxkbmap", "-layout", layout],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        say.warning("keyboard", f"the keyboard layout {layout} could not be set")


def show_bar(name: str, colour: str) -> None:
    """Show the customer's name and colour above everything, instead of a former bar."""
    stop_bar()
    process = subprocess.Popen(
        ["/usr/lib/mailbox/bar", name, colour, text_colour(colour), str(BAR_HEIGHT)],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=DISPLAY_USER,
        group=DISPLAY_USER,
        extra_groups=[],
        start_new_session=True,
        cwd="/",
    )
    BAR_PID.write_text(str(process.pid), "ascii")


def stop_bar() -> None:
    """End the bar that a former provisioning started."""
    try:
        os.killpg(int(BAR_PID.read_text("ascii")), signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    BAR_PID.unlink()


def text_colour(background: str) -> str:
    """Black or white, whichever is easier to read on this colour (ITU-R BT.601 luma)."""
    red, green, blue = (int(background[index : index + 2], 16) for index in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "#ffffff"
