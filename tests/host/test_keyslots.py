"""Keyslots of real volumes: made and killed by us, opened by cryptsetup, locked by QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.host import keyslots, luks, luks_new, volumes
from sandbox.host.vault import Vault
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.recovery import CODE_SLOT, KEY_SLOT, new_code
from tests.host.conftest import need
from tests.host.test_luks import SIZE, cryptsetup, opens


@pytest.fixture
def key() -> bytes:
    return Vault.new_key()


@pytest.fixture
def code() -> bytes:
    return new_code().encode()


@pytest.fixture
def volume(tmp_path: Path, key: bytes) -> Path:
    need("qemu-img")
    path = tmp_path / "volumes, all" / "a.luks"
    volumes.create(path, SIZE, key)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luks_new, "slow_iterations", lambda _seconds: 20_000)


@pytest.fixture
def with_code(volume: Path, key: bytes, code: bytes, quick: None) -> Path:
    keyslots.add(volume, CODE_SLOT, key, code, slow=True)
    return volume


def test_our_eyes_see_what_cryptsetup_sees(with_code: Path, key: bytes, code: bytes) -> None:
    assert keyslots.active(with_code) == (KEY_SLOT, CODE_SLOT)
    assert keyslots.find(with_code, key) == KEY_SLOT and opens(with_code, key)
    assert keyslots.find(with_code, code) == CODE_SLOT and opens(with_code, code)
    assert keyslots.find(with_code, b"x") is None and not opens(with_code, b"x")
    text = cryptsetup("luksDump", str(with_code)).stdout.decode()
    header = luks.read_header(keyslots.read(with_code))
    assert header.uuid in text
    assert f"Payload offset:\t{header.payload // 512}" in text
    for slot in header.slots:
        assert f"{slot.iterations}" in text
    assert keyslots.expected_size(with_code, SIZE) == with_code.stat().st_size


def test_the_code_as_it_is_written_opens_with_plain_cryptsetup(
    with_code: Path, code: bytes
) -> None:
    """As docs/recovery.md says: typed with its dashes, and a line end that is not a part of it."""
    arguments = ("open", "--test-passphrase", "--type", "luks1", str(with_code))
    assert cryptsetup(*arguments, input=code + b"\n").returncode == 0
    assert cryptsetup(*arguments, input=code.lower() + b"\n").returncode != 0


def test_the_code_is_slow_and_the_key_stays_fast(volume: Path, key: bytes, code: bytes) -> None:
    keyslots.add(volume, CODE_SLOT, key, code, slow=True)
    fast, slow = luks.read_header(keyslots.read(volume)).slots
    assert fast.number == KEY_SLOT and slow.number == CODE_SLOT
    assert slow.iterations > 20 * fast.iterations


def test_adding_twice_is_adding_once(with_code: Path, key: bytes, code: bytes) -> None:
    before = with_code.read_bytes()
    keyslots.add(with_code, CODE_SLOT, key, code, slow=True)
    assert with_code.read_bytes() == before


def test_a_keyslot_in_use_is_not_overwritten(with_code: Path, key: bytes) -> None:
    before = with_code.read_bytes()
    with pytest.raises(MailboxError) as refused:
        keyslots.add(with_code, CODE_SLOT, key, b"other", slow=True)
    assert refused.value.code == "keyslot-not-changed"
    assert with_code.read_bytes() == before


def test_a_killed_keyslot_is_gone_with_its_material(
    with_code: Path, key: bytes, code: bytes
) -> None:
    before = with_code.read_bytes()
    slot = luks.read_header(before).slot(KEY_SLOT)
    assert slot is not None
    keyslots.kill(with_code, KEY_SLOT, code)
    keyslots.kill(with_code, KEY_SLOT, code)
    assert keyslots.active(with_code) == (CODE_SLOT,)
    assert not opens(with_code, key) and opens(with_code, code)
    after = with_code.read_bytes()
    for at in range(slot.offset, slot.offset + slot.length, 4096):
        assert before[at : at + 2048] != after[at : at + 2048]


def test_the_last_keyslot_cannot_be_killed(volume: Path, key: bytes) -> None:
    before = volume.read_bytes()
    for opening in (key, b"wrong"):
        with pytest.raises(MailboxError) as refused:
            keyslots.kill(volume, KEY_SLOT, opening)
        assert refused.value.code == "keyslot-not-changed"
    assert volume.read_bytes() == before


def test_a_volume_in_use_keeps_its_keyslots(
    with_code: Path, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    from sandbox.host import process

    need("qemu-storage-daemon")
    with process.secret_pipe(key) as descriptor:
        secret = f"secret,id=k,file=/dev/fd/{descriptor},format=raw"
        file = f"driver=file,node-name=f,filename={str(with_code).replace(',', ',,')}"
        command = ["qemu-storage-daemon", "--object", secret, "--blockdev", file, "--blockdev"]
        command += ["driver=luks,node-name=v,file=f,key-secret=k", "--chardev", "stdio,id=c"]
        holder = subprocess.Popen(
            [*command, "--monitor", "chardev=c"],
            pass_fds=(descriptor,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None and b"QMP" in holder.stdout.readline()
            with pytest.raises(MailboxError) as refused:
                keyslots.add(with_code, 2, key, b"new", slow=False)
        finally:
            holder.terminate()
            holder.communicate()
    assert refused.value.code == "volume-in-use" and refused.value.exit_code == Exit.BUSY
    assert keyslots.active(with_code) == (KEY_SLOT, CODE_SLOT)


def test_fingerprints_tell_which_part_changed(with_code: Path, key: bytes) -> None:
    before = keyslots.fingerprints(with_code)
    assert set(before) == {"geometry", "0", "1"}
    keyslots.add(with_code, 2, key, b"another", slow=False)
    after = keyslots.fingerprints(with_code)
    assert {name for name in after if after[name] != before.get(name)} == {"2"}


def test_shredding_takes_every_keyslot(with_code: Path, key: bytes, code: bytes) -> None:
    volumes.erase_header(with_code)
    assert cryptsetup("isLuks", str(with_code)).returncode != 0
    assert not opens(with_code, key) and not opens(with_code, code)
