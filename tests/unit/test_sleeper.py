"""Who waits inside a machine that is put away, and the key made for its return."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sandbox.host.data import data_root

ROOT = data_root() / "images/base/root"
GUEST = ROOT / "usr/lib/mailbox"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"guest_{name}", GUEST / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ModuleType]:
    module = load("sleeper")
    folder = tmp_path / "sleeper"
    for name, path in (("FOLDER", folder), ("PID", folder / "pid"), ("CALL", folder / "call")):
        setattr(module, name, path)
    module.ANSWER = folder / "answer"  # type: ignore[attr-defined]
    yield module
    module.end()


def waits(sleeper: ModuleType) -> int:
    return int(sleeper.PID.read_text())


def resume(folder: Path) -> subprocess.CompletedProcess[bytes]:
    """As the host asks for it; where nobody waits, the guest's program would be started."""
    script = (ROOT / "usr/bin/mailbox-guest").read_text()
    script = script.replace("/run/mailbox/sleeper", str(folder))
    script = script.replace("exec /usr/lib/mailbox/guest.py", "echo started")
    return subprocess.run(["sh", "-c", script, "sh", "resume"], capture_output=True, timeout=60)


def test_it_goes_on_when_it_is_called_and_says_what_is_said_then(
    sleeper: ModuleType, tmp_path: Path
) -> None:
    mark = tmp_path / "went-on"

    def go_on() -> None:
        mark.touch()
        print('{"event": "phase", "name": "ready"}')

    sleeper.begin(go_on)
    waiting = waits(sleeper)
    assert stat.S_IMODE(sleeper.FOLDER.stat().st_mode) == 0o700
    assert not mark.exists()
    answer = resume(sleeper.FOLDER)
    assert answer.stdout == b'{"event": "phase", "name": "ready"}\n' and answer.returncode == 0
    assert mark.exists() and not sleeper.FOLDER.exists()
    os.waitpid(waiting, 0)
    assert resume(sleeper.FOLDER).stdout == b"started resume\n"


def test_a_later_one_takes_the_place_of_an_earlier_one(sleeper: ModuleType) -> None:
    sleeper.begin(lambda: print("first"))
    first = waits(sleeper)
    sleeper.begin(lambda: print("second"))
    second = waits(sleeper)
    assert resume(sleeper.FOLDER).stdout == b"second\n"
    for waiting in (first, second):
        os.waitpid(waiting, 0)


def test_where_the_one_that_waited_is_gone_a_new_program_is_started(sleeper: ModuleType) -> None:
    sleeper.begin(lambda: None)
    waiting = waits(sleeper)
    os.kill(waiting, 9)
    os.waitpid(waiting, 0)
    assert resume(sleeper.FOLDER).stdout == b"started resume\n"


def test_a_key_made_ahead_serves_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = load("channel")
    monkeypatch.setattr(channel, "STATE", str(tmp_path))
    monkeypatch.setattr(channel, "NEXT_KEY", str(tmp_path / "next_key"))
    made: list[str] = []

    def keygen(*argv: str) -> int:
        made.append(argv[-1])
        Path(argv[-1]).write_text("secret")
        Path(f"{argv[-1]}.pub").write_text(f"ssh-ed25519 made{len(made)}\n")
        return 0

    monkeypatch.setattr(channel, "run", keygen)
    (tmp_path / "next_key").write_text("secret")
    (tmp_path / "next_key.pub").write_text("ssh-ed25519 ahead comment\n")
    assert channel.make_host_key() == "ssh-ed25519 ahead" and not made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host_key", "host_key.pub"]
    assert channel.make_host_key() == "ssh-ed25519 made1"


MAPS = """\
55ee0dae0000-55ee0db00000 r-xp 00000000 fe:00 15   /usr/lib/thunderbird/thunderbird bin
55ee0db00000-55ee0db10000 rw-p 00020000 fe:00 15   /usr/lib/thunderbird/thunderbird bin
55ee0e000000-55ee0e100000 rw-p 00000000 00:00 0    [heap]
7f0000000000-7f0000001000 r--p 00000000 00:00 0
7f0000002000-7f0000004000 r--s 00000000 fd:00 3    /home/mail-user/.thunderbird/startupCache
7fffec0ce000-7fffec0ef000 r-xp 00000000 00:00 0    [vdso]
"""


def test_what_is_let_go_is_unchanged_and_in_a_file() -> None:
    memory = load("memory")
    assert list(memory.mapped_files(MAPS)) == [
        (0x55EE0DAE0000, 0x55EE0DB00000),
        (0x7F0000002000, 0x7F0000004000),
    ]


def test_a_program_goes_on_after_what_it_had_mapped_was_let_go(tmp_path: Path) -> None:
    memory = load("memory")
    (tmp_path / "1").symlink_to("/proc/self")  # of a user that is not root
    vm = tmp_path / "vm"
    vm.mkdir()
    memory.PROC, memory.KERNEL = tmp_path, vm
    read, write = os.pipe()
    child = subprocess.Popen(["cat"], stdin=read, stdout=subprocess.PIPE)
    os.close(read)
    if os.getuid() != 0:
        (tmp_path / str(child.pid)).symlink_to(f"/proc/{child.pid}")
    memory.let_go()
    os.write(write, b"still there")
    os.close(write)
    assert child.communicate(timeout=30)[0] == b"still there"
    assert (vm / "drop_caches").read_text() == "3" and (vm / "compact_memory").read_text() == "1"


def test_small_pieces_are_given_back_for_a_moment_only(tmp_path: Path) -> None:
    memory = load("memory")
    memory.ORDER, memory.REPORT_S = tmp_path / "order", 0
    memory.give_back()
    assert memory.ORDER.read_text() == memory.USUAL
