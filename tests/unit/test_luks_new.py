"""Headers made without a program, read by the reader that reads QEMU's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.host import luks, luks_new


def whole(passphrase: bytes) -> bytes:
    return luks_new.new_header(passphrase).ljust(luks_new.PAYLOAD, b"\0")


@settings(max_examples=5, deadline=None)
@given(st.binary(min_size=1, max_size=64))
def test_only_its_passphrase_opens_the_first_keyslot(passphrase: bytes) -> None:
    content = whole(passphrase)
    assert luks.find_slot(content, passphrase) == 0
    assert luks.find_slot(content, passphrase + b"x") is None
    header = luks.read_header(content)
    assert header.payload == luks_new.PAYLOAD and header.free == tuple(range(1, luks.SLOTS))


def test_no_two_are_alike() -> None:
    one, other = luks.read_header(whole(b"k")), luks.read_header(whole(b"k"))
    assert one.digest != other.digest and one.uuid != other.uuid
    assert one.slots[0].salt != other.slots[0].salt


def written(content: bytes, writes: tuple[luks_new.Write, ...]) -> bytes:
    for each in writes:
        end = each.offset + len(each.content)
        content = content[: each.offset] + each.content + content[end:]
    return content


@settings(max_examples=5, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.integers(1, luks.SLOTS - 1))
def test_a_keyslot_more_opens_the_same_key_and_is_there_with_its_last_write(
    passphrase: bytes, number: int
) -> None:
    content = whole(b"first")
    writes, derived = luks_new.new_keyslot(content, number, b"first", passphrase, 1000)
    half, full = written(content, writes[:-1]), written(content, writes)
    assert [slot.number for slot in luks.read_header(half).slots] == [0]
    assert luks.opens(full, number, passphrase) and luks.opens(full, 0, b"first")
    assert luks.remember(full, number, passphrase, derived)
    assert not luks.remember(full, number, passphrase + b"x", bytes(64))
    assert luks.volume_key(full, passphrase) == luks.volume_key(full, b"first") is not None


def test_a_dead_keyslot_leaves_no_material_and_the_others() -> None:
    content = whole(b"first")
    full = written(content, luks_new.new_keyslot(content, 3, b"first", b"x", 1000)[0])
    slot = luks.place(full, 3)
    noise, entry = luks_new.dead_keyslot(full, 3)
    half, dead = written(full, (noise,)), written(full, (noise, entry))
    assert not luks.opens(half, 3, b"x") and luks.opens(half, 0, b"first")
    assert luks.read_header(dead).free == tuple(range(1, luks.SLOTS))
    old, new = (each[slot.offset :][: slot.length] for each in (full, dead))
    assert all(old[at : at + 64] != new[at : at + 64] for at in range(0, len(old), 64))
    again = written(dead, luks_new.new_keyslot(dead, 3, b"first", b"y", 1000)[0])
    assert luks.opens(again, 3, b"y") and not luks.opens(again, 3, b"x")


def test_who_opens_nothing_adds_nothing() -> None:
    with pytest.raises(luks.BadHeaderError):
        luks_new.new_keyslot(whole(b"first"), 1, b"wrong", b"x", 1000)


def test_a_keyslot_that_lies_in_another_is_not_written() -> None:
    content = bytearray(whole(b"first"))
    at = luks.GEOMETRY + luks.SLOT.size
    content[at : at + luks.SLOT.size] = content[luks.GEOMETRY :][: luks.SLOT.size]
    content[at : at + 4] = luks.DISABLED.to_bytes(4)
    with pytest.raises(luks.BadHeaderError):
        luks_new.new_keyslot(bytes(content), 1, b"first", b"x", 1000)


def test_slow_is_slow_however_busy_the_computer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert luks_new.slow_iterations(0.001) == 600_000
    monkeypatch.setattr("time.thread_time", lambda: 1.0)  # a clock that has not moved
    assert luks_new.slow_iterations(2) == 600_000
