"""Folders that are ours alone, and files that are whole."""

from __future__ import annotations

import os
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
