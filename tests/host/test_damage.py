"""Real volumes damaged everywhere: what is said is true, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.host import header_backup, keyslots, luks_new, volumes
from sandbox.lifecycle.header import back_up
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.settle import repair
from sandbox.lifecycle.soundness import sound_volume
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.secrets import VOLUME_KEY
from tests.host.conftest import need
from tests.host.test_luks import opens
from tests.unit.fakes import NAME, World, make_house, make_wish

CODES: list[str] = []
DAMAGES = {"volume-header-damaged", "volume-truncated"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A mailbox on a real volume; only its machine is none."""
    need("qemu-img", "cryptsetup")
    made = replace(
        make_house(World(tmp_path_factory.mktemp("home"))),
        volumes=volumes,
        keyslots=keyslots,
        headers=header_backup,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(luks_new, "slow_iterations", lambda _seconds: 10_000)
        onboard(made, make_wish(hand_over=CODES.append))
    return made


@pytest.fixture
def volume(house: House) -> Path:
    return house.paths.volume(NAME)


def key(house: House) -> bytes:
    return (house.vault.get(house.records.load(NAME).id, VOLUME_KEY) or "").encode()


def look(house: House) -> str:
    """What is said about the volume: nothing, a warning's keyslot, or an error's code."""
    try:
        return " ".join(sound_volume(house, house.records.load(NAME)).changed)
    except MailboxError as error:
        assert error.exit_code == Exit.DAMAGED
        assert error.brief.endswith(".") and error.resolution
        return error.code


class Flipped:
    """The volume with some bytes flipped, for a while."""

    def __init__(self, volume: Path, at: int, mask: int = 0xFF, length: int = 8) -> None:
        self._volume, self._at, self._mask, self._length = volume, at, mask, length

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *_: object) -> None:
        self._flip()

    def _flip(self) -> None:
        with self._volume.open("r+b") as file:
            file.seek(self._at)
            old = file.read(self._length)
            file.seek(self._at)
            file.write(bytes(each ^ self._mask for each in old))


def test_at_every_4_kib_of_the_header(house: House, volume: Path) -> None:
    """cryptsetup is the judge: what we call whole it opens, what it cannot open we say."""
    header = keyslots.read(volume)
    seen: dict[str, int] = {}
    # The keyslots in use end before 516 KiB; behind them nothing is at stake.
    used = 516 * 1024
    for at in (*range(0, used, 4096), *range(used, len(header), 128 * 1024)):
        with Flipped(volume, at):
            before = volume.read_bytes()[: len(header)]
            said = look(house)
            assert volume.read_bytes()[: len(header)] == before
            if at % (4096 * 32) == 0:
                opened = opens(volume, key(house)) if at else False
                assert opened == (said not in DAMAGES), (at, said)
        seen[said] = seen.get(said, 0) + 1
    assert look(house) == ""
    # Magic and the key's keyslot, the code's keyslot, and the places of those not in use.
    assert set(seen) == {"volume-header-damaged", "1", ""}
    assert 60 < seen["volume-header-damaged"] < 66 and 60 < seen["1"] < 65


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 303), st.integers(1, 255))
def test_any_byte_of_the_beginning(house: House, volume: Path, at: int, mask: int) -> None:
    """Cipher, offsets, digests, iterations, the two keyslots' entries: no flip is overlooked."""
    with Flipped(volume, at, mask, length=1):
        assert look(house) in (*DAMAGES, "1")
    assert look(house) == ""


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(0, 1, exclude_max=True))
def test_cut_off_anywhere(house: House, volume: Path, part: float) -> None:
    size = volume.stat().st_size
    header = keyslots.read(volume)
    cut = int(part * size)
    try:
        with volume.open("r+b") as file:
            file.truncate(cut)
        assert look(house) in DAMAGES
        assert volume.stat().st_size == cut
    finally:
        with volume.open("r+b") as file:
            file.write(header)
            file.truncate(size)
    assert look(house) == ""


def test_a_header_backup_mends_what_it_can(house: House, volume: Path) -> None:
    back_up(house, NAME, remove=False)
    whole = keyslots.read(volume)
    for at in (0, 104, 120, 210, 4096, 8192):
        flipped = Flipped(volume, at)
        flipped.__enter__()
        assert look(house) == "volume-header-damaged"
        assert repair(house, NAME)[0].facts["repaired"]
        assert keyslots.read(volume) == whole and opens(volume, key(house))
    assert opens(volume, CODES[0].encode())
    back_up(house, NAME, remove=True)


@pytest.mark.parametrize("content", [b"", b"LUKS\xba\xbe\x00\x01", b"\0" * 4096, b"x" * 3_000_000])
def test_what_is_no_volume(house: House, volume: Path, content: bytes) -> None:
    kept = volume.with_name("kept")
    volume.rename(kept)
    try:
        volume.write_bytes(content)
        assert look(house) in DAMAGES
        assert volume.read_bytes() == content
        volume.unlink()
        assert look(house) == "volume-missing"
    finally:
        kept.rename(volume)
