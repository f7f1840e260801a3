"""Before this computer sleeps: a real bus with python-dbusmock's logind, and the real process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection

from demo.leftovers import die_with_parent
from demo.session import Session
from sandbox.host.logind import SleepDelay, longest_delay
from sandbox.model.errors import MailboxError
from tests.host.conftest import absent, need

# Debian's package; its libraries are no part of our virtual environment.
MOCK = ("/usr/bin/python3", "-m", "dbusmock", "--template", "logind")
MANAGER = "org.freedesktop.login1.Manager"


class Logind:
    """python-dbusmock's logind on a system bus of its own."""

    def __init__(self, bus: str) -> None:
        self._bus = bus

    def ask(self, interface: str, method: str, signature: str = "", *body: Any) -> Any:
        where = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", interface)
        with open_dbus_connection(self._bus) as connection:
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


@pytest.fixture
def logind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logind]:
    need("dbus-daemon")
    if subprocess.run([*MOCK[:2], "dbusmock", "--help"], capture_output=True).returncode:
        absent("python3-dbusmock is not installed")
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address=1", "--nopidfile"],
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    assert bus.stdout is not None
    address = bus.stdout.readline().decode().strip()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    mock = subprocess.Popen(MOCK, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
    try:
        logind = Logind(address)
        wait_until(lambda: not isinstance(logind.ask(MANAGER, "ListInhibitors")[0], str))
        yield logind
    finally:
        for each in (mock, bus):
            each.terminate()
            each.wait(10)


def wait_until(true: Callable[[], object]) -> None:
    """A process needs its time; that it never comes is a failure."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_lock_is_held_and_let_go(logind: Logind) -> None:
    delay = SleepDelay()
    delay.hold()
    delay.hold()
    ((what, who, _why, mode),) = logind.inhibitors
    assert (what, who, mode) == ("sleep", "mailbox", "delay")
    assert delay.wait(0.01) is None
    logind.prepares(True)
    assert delay.wait(10) is True
    delay.release()
    wait_until(lambda: logind.inhibitors == [])
    logind.prepares(False)
    assert delay.wait(10) is False
    delay.hold()
    assert len(logind.inhibitors) == 1


def test_how_long_a_sleep_is_delayed(logind: Logind) -> None:
    logind.set_delay(7_500_000)
    assert longest_delay() == 7.5


def test_without_a_bus_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nobody")
    with pytest.raises(MailboxError) as raised:
        SleepDelay()
    assert raised.value.code == "logind-missing"


def test_without_logind_on_the_bus_it_is_said(logind: Logind) -> None:
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address=1", "--nopidfile"],
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    assert bus.stdout is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.stdout.readline().decode().strip())
        with pytest.raises(MailboxError) as raised:
            longest_delay()
    bus.terminate()
    bus.wait(10)
    assert raised.value.code == "logind-missing"


def test_the_process_puts_away_what_is_open_and_ends(
    logind: Logind, in_session: Session, tmp_path: Path
) -> None:
    """No machine runs; what an `open` killed in the middle leaves is enough to be guarded."""
    session = in_session
    session.mailbox(
        *("onboard", "guarded", "--offline", "--address", "a@kunde.test", "--size", "64M"),
        *("--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test", "--password-stdin"),
        *("--no-recovery-code",),
        input=b"password\n",
    )
    folder = session.home / "run" / "guarded"
    folder.mkdir(mode=0o700, parents=True)
    env = session.env | {"DBUS_SYSTEM_BUS_ADDRESS": os.environ["DBUS_SYSTEM_BUS_ADDRESS"]}
    command = [sys.executable, "-P", "-m", "sandbox.cli.sleeper"]
    guards = [subprocess.Popen(command, env=env, preexec_fn=die_with_parent) for _ in range(2)]
    wait_until(lambda: len(logind.inhibitors) == 1)
    wait_until(lambda: [guard.poll() for guard in guards].count(0) == 1)
    logind.prepares(True)
    wait_until(lambda: not folder.exists())
    wait_until(lambda: logind.inhibitors == [])
    assert [guard.wait(30) for guard in guards] == [0, 0]
    told = (session.home / "state" / "sleep.log").read_text()
    assert "suspend guarded: " in told and "close guarded --shutdown: done" in told
    log = session.mailbox("log", "guarded", "--json").text
    assert '"verb": "close"' in log
