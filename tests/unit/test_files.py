"""Folders that are ours alone, and files that are whole."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from sandbox.model.errors import MailboxError
from sandbox.state import files


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_folder_and_its_parents_are_private(tmp_path: Path) -> None:
    files.private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    folder.chmod(0o755)
    files.private_folder(folder)
    assert mode(folder) == 0o700


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files.private_folder(tmp_path / "a")
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(MailboxError) as refused:
        files.private_folder(folder)
    assert refused.value.code == "folder-not-ours"


def test_a_file_in_a_shared_folder_leaves_the_folder_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    files.replace(tmp_path / "file", b"new")
    assert mode(tmp_path) == 0o755 and mode(tmp_path / "file") == 0o600


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_who_waits_at_a_pipe_is_woken_when_it_is_removed(tmp_path: Path, flags: int) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    opening = threading.Event()

    def wait() -> None:
        opening.set()
        os.close(os.open(pipe, flags))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    assert opening.wait(10)
    _await_wait(waiting)
    files.remove_pipes(tmp_path)
    waiting.join(10)
    assert not waiting.is_alive() and not pipe.exists()


def _await_wait(thread: threading.Thread) -> None:
    """Until the thread waits in the kernel at the pipe (proc(5), wchan)."""
    place = Path(f"/proc/self/task/{thread.native_id}/wchan")
    while "wait_for_partner" not in (told := place.read_text()):
        assert thread.is_alive()
        if told == "0":  # awake, or a kernel that does not tell
            time.sleep(0.2)
            return


def test_only_pipes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    files.remove_pipes(tmp_path)
    files.remove_pipe(tmp_path / "never there")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}
