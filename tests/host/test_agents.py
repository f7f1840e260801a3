"""An agent that was ended is gone: whoever comes next starts one of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox.host import agents
from tests.host.conftest import need


@pytest.fixture
def home(tmp_path: Path) -> Path:
    need("gpg", "gpgconf", "gpg-connect-agent")
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def agent(home: Path) -> int:
    """The process of the home's agent; one is started where there is none."""
    command = ["gpg-connect-agent", "--homedir", str(home), "GETINFO pid", "/bye"]
    said = subprocess.run(command, capture_output=True, check=True).stdout.split()
    return int(said[1])


def test_it_is_gone_at_once_and_another_one_takes_its_place(home: Path) -> None:
    seen = set()
    for _ in range(5):
        pid = agent(home)
        agents.end(home)
        assert not is_alive(pid)
        seen.add(pid)
    assert len(seen) == 5


def test_anothers_agent_stays(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    pid = agent(other)
    agents.end(home)
    assert is_alive(pid)
    agents.end(other)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False
