"""Encrypted volumes opened by QEMU's storage daemon: nothing readable on the disk, no key about."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from sandbox.host import keyslots, storage, volumes
from sandbox.host.vault import Vault
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import VOLUME_EXPORT
from tests.host.conftest import need
from tests.host.test_luks import opens

CANARY = b"canary-in-the-memory-of-a-machine"
SIZE = 64 * 1024**2


@pytest.fixture
def key() -> bytes:
    return Vault.new_key()


@pytest.fixture(params=[volumes.create, volumes.create_for_memory])
def volume(request: pytest.FixtureRequest, tmp_path: Path, key: bytes) -> Path:
    """Made by QEMU, or by `mailbox` itself."""
    need("qemu-img", storage.DAEMON)
    path = tmp_path / "a,b.luks"
    request.param(path, SIZE, key)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "run" / "window"
    made.parent.mkdir(mode=0o700)
    yield made
    storage.end(made)


@pytest.fixture
def window(place: Path) -> Path:
    problem = storage.suspend_problem()
    if problem:
        pytest.skip(problem)
    return place


def daemon(place: Path) -> int:
    return int(place.with_name(f"{place.name}.pid").read_text())


def test_what_is_written_rests_encrypted_and_comes_back(
    volume: Path, key: bytes, window: Path
) -> None:
    storage.serve_file(volume, key, window)
    with window.open("r+b") as file:
        file.write(CANARY * 1000)
    assert storage.serves(window)
    storage.end(window)
    assert not storage.serves(window) and not window.exists()
    assert CANARY not in volume.read_bytes()
    storage.serve_file(volume, key, window)
    assert window.read_bytes().startswith(CANARY * 1000)


def test_the_window_is_for_its_user_alone(volume: Path, key: bytes, window: Path) -> None:
    storage.serve_file(volume, key, window)
    assert window.stat().st_mode & 0o077 == 0 and window.stat().st_uid == os.geteuid()


def test_the_key_is_in_no_command_line_and_no_core(volume: Path, key: bytes, place: Path) -> None:
    storage.serve_disk(volume, key, place)
    process = Path(f"/proc/{daemon(place)}")
    shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert b"key-secret=key" in shown and key not in shown
    limits = (process / "limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_a_disk_is_served_to_its_user_alone(volume: Path, key: bytes, place: Path) -> None:
    storage.serve_disk(volume, key, place)
    assert place.is_socket() and place.stat().st_mode & 0o077 == 0
    told = subprocess.run(
        ["qemu-img", "info", f"nbd+unix:///{VOLUME_EXPORT}?socket={place}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"({SIZE} bytes)" in told.stdout


def test_a_wrong_key_serves_nothing(volume: Path, place: Path) -> None:
    before = volume.read_bytes()
    with pytest.raises(MailboxError) as refused:
        storage.serve_disk(volume, Vault.new_key(), place)
    assert refused.value.code == "volume-key-wrong" and refused.value.exit_code == Exit.DAMAGED
    assert list(place.parent.iterdir()) == [] and volume.read_bytes() == before


def test_a_volume_is_served_once(volume: Path, key: bytes, place: Path) -> None:
    storage.serve_disk(volume, key, place)
    second = place.with_name("second")
    for _ in range(2):
        with pytest.raises(MailboxError) as refused:
            storage.serve_disk(volume, key, second)
        assert refused.value.code == "volume-in-use" and refused.value.exit_code == Exit.BUSY
        assert storage.serves(place) and not storage.serves(second)
    with pytest.raises(MailboxError) as refused:
        keyslots.add(volume, 3, key, Vault.new_key(), slow=False)
    assert refused.value.code == "volume-in-use"
    storage.end(place)
    storage.serve_disk(volume, key, second)
    storage.end(second)


def test_what_a_killed_daemon_left_is_cleared(volume: Path, key: bytes, window: Path) -> None:
    storage.serve_file(volume, key, window)
    os.kill(daemon(window), signal.SIGKILL)
    storage.end(window)
    assert list(window.parent.iterdir()) == []
    storage.serve_file(volume, key, window)
    assert window.stat().st_size == SIZE


def test_what_is_made_for_a_memory_is_what_others_call_luks(tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "state.luks"
    volumes.create_for_memory(path, SIZE, key)
    assert path.stat().st_mode & 0o077 == 0
    assert opens(path, key) and not opens(path, Vault.new_key())
    first = path.read_bytes()
    volumes.create_for_memory(path, SIZE, key)  # what a killed one left is replaced
    assert path.read_bytes() != first


def test_one_that_starts_yet_is_ended(
    volume: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a command leaves it that is stopped meanwhile: it waits for its key here."""
    reader, writer = os.pipe()
    monkeypatch.setattr(storage.process, "secret_pipe", lambda _key: nullcontext(reader))
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(storage.serve_disk, volume, b"", place)
        while not storage.serves(place):
            assert not serving.done()
        assert not place.with_name(f"{place.name}.pid").exists()
        storage.end(place)
        assert not storage.serves(place)
        assert serving.exception(60) is not None
    os.close(reader)
    os.close(writer)


def test_somebody_elses_process_is_not_ended(place: Path) -> None:
    place.with_name(f"{place.name}.pid").write_text(str(os.getpid()))
    storage.end(place)


def test_a_digest_tells_damage_and_no_copying(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (0, SIZE // 2, SIZE - 5):
            file.seek(at)
            file.write(secrets.token_bytes(5))
    before = storage.digest(path)
    copy = tmp_path / "copy"
    shutil.copyfile(path, copy)  # without holes
    assert storage.digest(copy) == before
    with copy.open("r+b") as file:
        file.seek(SIZE // 2 + 2)
        byte = file.read(1)[0]
        file.seek(SIZE // 2 + 2)
        file.write(bytes([byte ^ 1]))
    assert storage.digest(copy) != before
    with path.open("r+b") as file:
        file.truncate(SIZE + 1)
    assert storage.digest(path) != before
