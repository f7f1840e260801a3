"""Our daemons are known of from their birth, and none outlives those who could reach it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.channel.daemon import lock_file
from sandbox.host import daemons
from sandbox.host.wardens import WardenProcesses
from sandbox.state import lock

PATIENCE_S = 60.0


@pytest.fixture
def control(tmp_path: Path) -> Path:
    folder = tmp_path / "m"
    folder.mkdir(mode=0o700)
    return folder / "warden.sock"


def start(control: Path) -> None:
    """A warden whose machine does not come."""
    folder = control.parent
    config: dict[str, Any] = {
        "profile_id": "4f1c",
        "name": "clientA",
        "channel_socket": str(folder / "channel.sock"),
        "control_socket": str(control),
        "hostname": "clientA",
        "log_file": str(folder / "warden.log"),
        "connect_deadline_s": 600,
        "forwards": [],
    }
    WardenProcesses().start(config)


def serving(control: Path) -> int:
    end = time.monotonic() + PATIENCE_S
    while (pid := daemons.peer(control)) is None:
        assert time.monotonic() < end, "it never serves"
        time.sleep(0.02)
    return pid


def test_one_that_does_not_serve_yet_is_ended(control: Path) -> None:
    start(control)
    assert lock.is_held(lock_file(control))
    WardenProcesses().kill(control)
    assert not lock.is_held(lock_file(control)) and daemons.peer(control) is None


def test_there_is_one_only(control: Path) -> None:
    start(control)
    first = serving(control)
    start(control)
    assert serving(control) == first
    WardenProcesses().kill(control)
    assert daemons.peer(control) is None


def test_one_that_hangs_is_killed(control: Path) -> None:
    start(control)
    os.kill(serving(control), signal.SIGSTOP)
    WardenProcesses().kill(control)
    assert not lock.is_held(lock_file(control))


@pytest.mark.parametrize(
    "lose", [Path.unlink, lambda control: shutil.rmtree(control.parent)], ids=["socket", "folder"]
)
def test_one_that_nobody_can_reach_ends(control: Path, lose: Callable[[Path], None]) -> None:
    start(control)
    process = os.pidfd_open(serving(control))
    lose(control)
    assert select.select([process], [], [], PATIENCE_S)[0]
    os.close(process)


def test_one_whose_socket_was_replaced_leaves_the_new_one_alone(control: Path) -> None:
    start(control)
    old = os.pidfd_open(serving(control))
    shutil.rmtree(control.parent)
    control.parent.mkdir(mode=0o700)
    start(control)
    new = serving(control)
    assert select.select([old], [], [], PATIENCE_S)[0]
    os.close(old)
    assert serving(control) == new and lock.is_held(lock_file(control))
    WardenProcesses().kill(control)
