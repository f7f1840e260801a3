"""A system bus of its own with python-dbusmock's logind on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection

from demo.leftovers import die_with_parent
from tests.host.conftest import absent, need

# Debian's package; its libraries are no part of our virtual environment.
MOCK = ("/usr/bin/python3", "-m", "dbusmock", "--template", "logind")
MANAGER = "org.freedesktop.login1.Manager"


class Logind:
    """python-dbusmock's logind on a system bus of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, interface: str, method: str, signature: str = "", *body: Any) -> Any:
        where = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", interface)
        with open_dbus_connection(self.address) as connection:
            question = new_method_call(where, method, signature or None, body)
            return connection.send_and_get_reply(question, timeout=10).body

    def prepares(self, sleeping: bool) -> None:
        news = (MANAGER, "PrepareForSleep", "b", [("b", sleeping)])
        self.ask("org.freedesktop.DBus.Mock", "EmitSignal", "sssav", *news)

    @property
    def inhibitors(self) -> list[tuple[str, ...]]:
        return [tuple(each[:4]) for each in self.ask(MANAGER, "ListInhibitors")[0]]

    def set_delay(self, microseconds: int) -> None:
        properties = {"InhibitDelayMaxUSec": ("t", microseconds)}
        self.ask("org.freedesktop.DBus.Mock", "AddProperties", "sa{sv}", MANAGER, properties)


@contextlib.contextmanager
def bus() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A message bus that nobody is on; its address."""
    need("dbus-daemon")
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address=1", "--nopidfile"],
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    assert daemon.stdout is not None
    try:
        yield daemon.stdout.readline().decode().strip(), daemon
    finally:
        daemon.terminate()
        daemon.wait(10)


@contextlib.contextmanager
def mock_logind() -> Iterator[Logind]:
    """A logind that announces sleeps when it is told to."""
    if subprocess.run([*MOCK[:3], "--help"], capture_output=True, check=False).returncode:
        absent("python3-dbusmock is not installed")
    with bus() as (address, _):
        env = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": address}
        with subprocess.Popen(
            MOCK, stdout=subprocess.DEVNULL, env=env, preexec_fn=die_with_parent
        ) as mock:
            logind = Logind(address)
            wait_until(lambda: not isinstance(logind.ask(MANAGER, "ListInhibitors")[0], str))
            try:
                yield logind
            finally:
                mock.terminate()


def wait_until(true: Callable[[], object]) -> None:
    """A process needs its time; that it never comes is a failure."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
