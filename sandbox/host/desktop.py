"""The user's desktop: the viewer's window, the time zone, the keyboard layout."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sandbox.host import process

_LAYOUT = re.compile(r'^\s*XKBLAYOUT\s*=\s*"?([a-z]{2,5})', re.MULTILINE)


def time_zone(localtime: Path = Path("/etc/localtime")) -> str:
    """The name of this computer's time zone (localtime(5)); UTC when it cannot be told."""
    target = str(localtime.resolve())
    return target.partition("/zoneinfo/")[2] or "UTC"


def keyboard(settings: Path = Path("/etc/default/keyboard")) -> str:
    """This computer's first keyboard layout (keyboard(5)); `us` when it cannot be told."""
    try:
        match = _LAYOUT.search(settings.read_text(errors="replace"))
    except OSError:
        return "us"
    return match[1] if match else "us"


def has_display() -> bool:
    """Whether a window can be shown here."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show(uri: str, domain: str) -> bool:
    """Show a machine's display; its title, the customer's name, comes from the domain."""
    viewer = process.which("virt-viewer")
    if viewer is None or not has_display():
        return False
    process.spawn_viewer([viewer, "--connect", uri, "--attach", "--wait", "--", domain])
    return True
