"""Before this computer sleeps: a real bus with python-dbusmock's logind, and the real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.leftovers import die_with_parent
from demo.session import Session
from sandbox.host.logind import SleepDelay, longest_delay
from sandbox.model.errors import MailboxError
from tests.host.mocklogind import Logind, bus, mock_logind, wait_until


@pytest.fixture
def logind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logind]:
    with mock_logind() as logind:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", logind.address)
        yield logind


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


def test_without_logind_on_the_bus_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with bus() as (address, _):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        with pytest.raises(MailboxError) as raised:
            longest_delay()
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
