"""A killed demonstration leaves nothing that the next one does not end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from demo import leftovers

PARENT = """
import subprocess, sys
from demo.leftovers import die_with_parent
child = subprocess.Popen(["sleep", "600"], preexec_fn=die_with_parent)
print(child.pid, flush=True)
sys.stdin.read()
"""


def ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def test_a_daemon_ends_with_a_killed_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not ended(child)
        parent.kill()
    for _ in range(200):
        if ended(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child lives on")


def test_the_next_run_ends_what_works_in_noted_folders(tmp_path: Path) -> None:
    folder, other = tmp_path / "mbx-1", tmp_path / "mbx-2"
    folder.mkdir()
    other.mkdir()
    leftovers.note(tmp_path, folder)
    left = subprocess.Popen(["sleep", "600"], env={"XDG_RUNTIME_DIR": str(folder)})
    spared = subprocess.Popen(["sleep", "600"], env={"XDG_RUNTIME_DIR": str(other)})
    try:
        leftovers.sweep(tmp_path)
        assert left.wait(10) == -signal.SIGTERM
        assert spared.poll() is None
        assert not folder.exists() and other.exists()
        leftovers.sweep(tmp_path)
    finally:
        for process in (left, spared):
            process.kill()
            process.wait()
