"""Volumes as LUKS sees them: opened by their key, by nothing else, and by nothing once erased."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox.host import process, volume_end, volumes
from sandbox.host.vault import Vault
from sandbox.model.errors import MailboxError
from tests.host.conftest import need

SIZE = 64 * 1024**2


@pytest.fixture
def key() -> bytes:
    return Vault.new_key()


@pytest.fixture
def volume(tmp_path: Path, key: bytes) -> Path:
    need("qemu-img")
    path = tmp_path / "volumes" / "a.luks"
    volumes.create(path, SIZE, key)
    return path


def cryptsetup(*arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    need("cryptsetup")
    program = process.which("cryptsetup") or ""
    return subprocess.run([program, *arguments], input=input, capture_output=True, check=False)


def opens(volume: Path, key: bytes) -> bool:
    done = cryptsetup("open", "--test-passphrase", "--key-file", "-", str(volume), input=key)
    assert done.returncode in (0, 1, 2), done.stderr
    return done.returncode == 0


def qemu_io(volume: Path, key: bytes, command: str) -> subprocess.CompletedProcess[bytes]:
    need("qemu-io")
    image = f"driver=luks,key-secret=k,file.filename={volume}"
    with process.secret_pipe(key) as descriptor:
        secret = f"secret,id=k,file=/dev/fd/{descriptor},format=raw"
        return subprocess.run(
            ["qemu-io", "--object", secret, "--image-opts", image, "-c", command],
            pass_fds=(descriptor,),
            capture_output=True,
            check=False,
        )


def test_any_linux_reads_the_header(volume: Path) -> None:
    done = cryptsetup("luksDump", str(volume))
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    for line in ("aes", "xts-plain64", "sha256", "512"):
        assert line in text
    assert [f"Key Slot {n}: ENABLED" in text for n in range(8)] == [True] + [False] * 7


def test_its_key_opens_it_and_another_does_not(volume: Path, key: bytes) -> None:
    assert opens(volume, key)
    assert not opens(volume, Vault.new_key())
    assert not opens(volume, b"")
    assert not opens(volume, key[:-1])


def test_it_takes_little_room_until_mail_arrives(volume: Path) -> None:
    facts = volumes.look(volume)
    assert facts is not None and facts.luks
    assert facts.size > SIZE and facts.allocated < 4 * 1024**2
    volumes.check(volume)


def test_what_is_written_is_not_to_be_read_in_the_file(volume: Path, key: bytes) -> None:
    done = qemu_io(volume, key, "write -P 0x41 0 1M")
    assert done.returncode == 0, done.stderr
    content = volume.read_bytes()
    assert b"A" * 32 not in content and key not in content
    assert qemu_io(volume, key, "read -P 0x41 0 1M").returncode == 0


def test_after_erasing_no_key_opens_it_and_the_data_are_noise(volume: Path, key: bytes) -> None:
    qemu_io(volume, key, "write -P 0x41 0 1M")
    before = volume.read_bytes()
    assert volumes.erase_header(volume) is True
    assert not opens(volume, key)
    assert qemu_io(volume, key, "read 0 512").returncode != 0
    assert cryptsetup("isLuks", str(volume)).returncode != 0
    after = volume.read_bytes()
    offset = 8 * 256_000  # eight keyslots of 4000 stripes of a 64-byte key
    assert all(after[i : i + 4096] != before[i : i + 4096] for i in range(0, offset, 4096))


def test_a_copy_of_the_old_header_would_open_it_again(volume: Path, key: bytes) -> None:
    """What a backup of the header means; and that the test above can fail."""
    header = volume.read_bytes()[: 4 * 1024**2]
    volumes.erase_header(volume)
    with volume.open("r+b") as file:
        file.write(header)
    assert opens(volume, key)


def test_a_size_that_cannot_be_is_a_sentence(tmp_path: Path, key: bytes) -> None:
    need("qemu-img")
    path = tmp_path / "a.luks"
    with pytest.raises(MailboxError) as refused:
        volumes.create(path, 2**62, key)
    assert refused.value.code in ("volume-not-made", "disk-full")
    assert refused.value.details and list(tmp_path.iterdir()) == []


def test_the_end_of_a_volume_is_seen(volume: Path, key: bytes) -> None:
    seen = volume_end.describe(volume)
    done = cryptsetup("luksUUID", str(volume))
    assert seen["volume_id"] == done.stdout.decode().strip()
    assert (seen["cipher"], seen["key_bits"], seen["keyslots"]) == ("aes-xts-plain64", 256, 1)
    assert volume_end.opens(volume, key) is True
    assert volume_end.opens(volume, Vault.new_key()) is False
    volumes.erase_header(volume)
    assert volume_end.opens(volume, key) is False and volume_end.describe(volume) == {}


def test_a_volume_with_a_comma_in_its_path_is_tried_too(tmp_path: Path, key: bytes) -> None:
    need("qemu-img", "qemu-io")
    path = tmp_path / "a,b" / "x,y.luks"
    process.run(["mkdir", str(path.parent)])
    plain = tmp_path / "plain.luks"
    volumes.create(plain, SIZE, key)
    plain.rename(path)
    assert volume_end.opens(path, key) is True


def test_blocks_are_given_back(volume: Path, key: bytes) -> None:
    qemu_io(volume, key, "write -P 0x41 0 8M")
    before = volume.stat()
    if not volume_end.discard(volume):
        pytest.skip("this file system cannot punch holes")
    after = volume.stat()
    assert after.st_size == before.st_size and after.st_blocks * 512 < 1024**2
    assert volume_end.discard(volume.with_name("none")) is None
