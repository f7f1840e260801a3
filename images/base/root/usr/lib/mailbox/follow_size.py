#!/usr/bin/python3 -ES
"""Give the screen the size of the window that shows it: the host tells it by a hot-plug event."""

import socket
import subprocess
import time

NETLINK_KOBJECT_UEVENT = 15
KERNEL_EVENTS = 1
SETTLE_S = 0.3


def is_new_size(event: bytes) -> bool:
    """Whether an event of the kernel says that the screen has changed."""
    fields = event.split(b"\0")
    return b"SUBSYSTEM=drm" in fields and b"HOTPLUG=1" in fields


def set_size() -> None:
    """Choose the size that the host prefers; X learns of it only by being asked once before."""
    for options in (["--query"], ["--output", "Virtual-1", "--preferred"]):
        subprocess.run(["/usr/bin/xrandr", *options], stdout=subprocess.DEVNULL, check=False)


def main() -> None:
    """Follow the events for ever."""
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, NETLINK_KOBJECT_UEVENT) as events:
        events.bind((0, KERNEL_EVENTS))
        while True:
            if is_new_size(events.recv(16 * 1024)):
                time.sleep(SETTLE_S)  # a window that is being dragged sends many
                set_size()


if __name__ == "__main__":
    main()
