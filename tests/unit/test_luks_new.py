"""Headers made without a program, read by the reader that reads QEMU's."""

from __future__ import annotations

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
