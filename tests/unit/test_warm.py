"""Machines from their image's warm state: only where it fits, and never instead of an open."""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.host import images
from sandbox.host.libvirt import saveheader, warming
from sandbox.host.libvirt.domain_xml import domain_xml
from sandbox.host.probes import desk
from sandbox.host.probes.finding import Level
from sandbox.lifecycle import warm
from sandbox.lifecycle.engine import StoppedError
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import Wish, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.preview import repairing
from sandbox.lifecycle.settle import repair
from sandbox.lifecycle.warming import catch_up, wanted
from sandbox.model.errors import MailboxError
from sandbox.model.machine import MachineSpec, Shape, domain_name
from sandbox.model.profile import Machine
from sandbox.model.warm import WarmFailure, WarmNote, misfit, read_failure, read_note
from sandbox.state import files, lock
from tests.unit.fakes import NAME, SETTINGS, World, make_wish

FITS = {"image": "i", "memory": "1", "cpus": "2", "qemu": "7", "cpu": "a"}
NOTE = WarmNote("0" * 64, 5, FITS)
SHAPE = SETTINGS.machine.shape
LARGE = Shape(3 * 1024**3, 4)
SPEC = MachineSpec(
    name="mailbox-a",
    uuid=uuid.UUID(int=1),
    title="a & b",
    memory=2 * 1024**3,
    cpus=2,
    kernel=Path("/i/vmlinuz"),
    initrd=Path("/i/initrd.img"),
    root_image=Path("/i/root.erofs"),
    channel_socket=Path("/run/a/channel.sock"),
    display_socket=Path("/run/a/display.sock"),
    console_log=Path("/run/a/console.log"),
    hardware=False,
)
OTHER = replace(
    SPEC,
    name="mailbox-b",
    uuid=uuid.UUID(int=2),
    title="b",
    kernel=Path("/j/k"),
    initrd=Path("/j/i"),
    root_image=Path("/j/r"),
    channel_socket=Path("/run/b/c"),
    display_socket=Path("/run/b/d"),
    console_log=Path("/run/b/l"),
)


def saved_xml(spec: MachineSpec) -> str:
    """As libvirt tells it: memory in KiB, a generation id."""
    xml = domain_xml(spec).replace("<genid/>", f"<genid>{uuid.UUID(int=9)}</genid>")
    plain = f"<memory unit='b' dumpCore='off'>{spec.memory}</memory>"
    assert plain in xml
    return xml.replace(plain, f"<memory unit='KiB' dumpCore='off'>{spec.memory // 1024}</memory>")


def warmed(house: House) -> House:
    image = house.images.newest(SETTINGS.client)
    assert catch_up(house, image) == [SHAPE]
    return house


def test_an_open_begins_from_the_warm_state(house: House, world: World) -> None:
    onboard(warmed(house), make_wish())
    facts = open_mailbox(house, NAME, headless=True).facts
    assert facts["warm"] and facts["cold_reason"] == ""
    state = world.state
    assert state["machines"][domain_name(NAME)]["warm"] and len(state["machines"]) == 1
    (warden,) = state["wardens"].values()
    assert warden["config"]["up"], "the machine has booted before"


def test_a_machine_that_does_not_go_on_from_it_boots(house: House, world: World) -> None:
    onboard(warmed(house), make_wish())
    world.guest.warm_dies = True
    facts = open_mailbox(house, NAME, headless=True).facts
    assert not facts["warm"] and "did not answer" in facts["cold_reason"]
    state = world.state
    assert "warm" not in state["machines"][domain_name(NAME)] and len(state["machines"]) == 1
    (warden,) = state["wardens"].values()
    assert not warden["config"]["up"] and warden["state"] == "ready"
    assert any("it boots" in text for text in world.warned)


def test_making_it_leaves_a_read_only_file_and_nothing_else(house: House, world: World) -> None:
    warmed(house)
    image = house.images.newest(SETTINGS.client)
    assert image.warm(SHAPE).stat().st_mode & 0o777 == 0o400
    assert not world.state["machines"] and not world.state["wardens"]
    assert not list(house.paths.runtime.glob(".*")) and not list(image.folder.glob(".build-*"))
    assert catch_up(house, image) == [], "it fits: not made twice"
    assert catch_up(house, image, anew=True) == [SHAPE]


def test_one_that_could_not_be_made_leaves_the_old_one(house: House, world: World) -> None:
    warmed(house)
    image = house.images.newest(SETTINGS.client)
    note = image.warm_note(SHAPE).read_bytes()
    world.guest.silent = True
    with pytest.raises(MailboxError):
        catch_up(house, image, anew=True)
    assert image.warm_note(SHAPE).read_bytes() == note and not world.state["machines"]


def _damage(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"Memory")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda image: image.warm_note(SHAPE).unlink(), "there is none"),
        (lambda image: image.warm_note(SHAPE).write_bytes(b"{"), "there is none"),
        (lambda image: image.warm(SHAPE).unlink(), "there is none"),
        (lambda image: _damage(image.warm(SHAPE)), "cannot be used"),
        (
            lambda image: image.warm_note(SHAPE).write_bytes(
                image.warm_note(SHAPE).read_bytes().replace(b'"qemu": "7"', b'"qemu": "8"')
            ),
            "QEMU was updated",
        ),
    ],
)
def test_whatever_is_wrong_with_it_the_mailbox_opens(
    house: House, world: World, spoil: object, reason: str
) -> None:
    onboard(warmed(house), make_wish())
    assert callable(spoil)
    spoil(house.images.newest(SETTINGS.client))
    facts = open_mailbox(house, NAME, headless=True).facts
    assert not facts["warm"] and reason in facts["cold_reason"]
    assert "warm" not in world.state["machines"][domain_name(NAME)]


def large(name: str) -> Wish:
    machine = Machine(LARGE.memory, LARGE.cpus)
    return make_wish(name, settings=replace(SETTINGS, machine=machine))


def test_every_shape_that_a_mailbox_has_gets_one(house: House) -> None:
    image = house.images.newest(SETTINGS.client)
    onboard(house, make_wish())
    onboard(house, large("large"))
    assert wanted(house, SETTINGS.client) == [SHAPE, LARGE]
    assert catch_up(house, image) == [SHAPE, LARGE] and catch_up(house, image) == []
    for name in (NAME, "large"):
        assert open_mailbox(house, name, headless=True).facts["warm"]


def test_those_that_no_mailbox_needs_go(house: House) -> None:
    image = house.images.newest(SETTINGS.client)
    warmed(house)
    files.replace(image.folder / "warm.state", b"of an earlier version")
    onboard(house, large("large"))
    assert catch_up(house, image) == [LARGE]
    left = {path.name for path in image.folder.glob("warm*")}
    assert left == {image.warm(LARGE).name, image.warm_note(LARGE).name}


def test_one_shape_alone_can_be_made(house: House) -> None:
    image = house.images.newest(SETTINGS.client)
    onboard(house, make_wish())
    assert catch_up(house, image, only=LARGE) == [LARGE]
    assert images.warm_shapes(image) == [LARGE]


class TestLater:
    def test_an_open_that_booted_has_it_made(self, house: House, world: World) -> None:
        onboard(house, make_wish())
        reason = open_mailbox(house, NAME, headless=True).facts["cold_reason"]
        assert reason == "there is none"
        assert f"Warming {SETTINGS.client} later" in world.said

    def test_not_after_one_that_did_not(self, house: House, world: World) -> None:
        onboard(warmed(house), make_wish())
        open_mailbox(house, NAME, headless=True)
        assert f"Warming {SETTINGS.client} later" not in world.said

    def test_not_where_it_is_not_wished_for(self, house: House, world: World) -> None:
        onboard(house, make_wish())
        files.replace(house.paths.config_file, b"[images]\nwarm_in_background = false\n")
        open_mailbox(house, NAME, headless=True)
        assert f"Warming {SETTINGS.client} later" not in world.said

    def test_what_failed_is_told_and_not_tried_again_until_something_changes(
        self, house: House, world: World
    ) -> None:
        image = house.images.newest(SETTINGS.client)
        onboard(house, make_wish())
        world.guest.silent = True
        with pytest.raises(MailboxError) as raised:
            catch_up(house, image, gently=True)
        failure = house.images.warm_failure(image, SHAPE)
        assert failure is not None and raised.value.brief in failure.reason
        assert catch_up(house, image, gently=True) == []
        verdict = desk.judge_warm([f"{image.client}, {SHAPE}: {failure.reason}"])
        assert verdict.level is Level.WARNING and failure.reason in verdict.detail
        world.guest.silent = False
        open_mailbox(house, NAME, headless=True)
        assert f"Warming {SETTINGS.client} later" not in world.said
        assert any(failure.reason in text for text in world.said)
        house.images.note_failure(image, SHAPE, replace(failure, fits={"qemu": "6"}))
        assert catch_up(house, image, gently=True) == [SHAPE]
        assert house.images.warm_failure(image, SHAPE) is None

    def test_one_that_fails_keeps_no_other_from_being_made(
        self, house: House, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        onboard(house, make_wish())
        onboard(house, large("large"))
        image = house.images.newest(SETTINGS.client)
        start = type(house.machines).start

        def starts(self: object, spec: MachineSpec) -> None:
            if spec.shape == SHAPE:
                raise MailboxError("No room.")
            start(self, spec)  # type: ignore[arg-type]

        monkeypatch.setattr(type(house.machines), "start", starts)
        with pytest.raises(MailboxError, match="No room"):
            catch_up(house, image)
        assert house.images.warm_note(image, LARGE) is not None


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_a_failure_is_read_as_it_was_written(reason: str, fits: dict[str, str]) -> None:
    failure = WarmFailure("2026-01-01", reason, fits)
    assert read_failure(failure.write()) == failure
    assert read_failure(NOTE.write()) is None and read_failure(b"[") is None


@given(st.sampled_from(sorted(FITS)), st.text())
def test_whatever_differs_does_not_fit(key: str, other: str) -> None:
    assert misfit(NOTE, FITS) is None
    if other != FITS[key]:
        assert misfit(NOTE, {**FITS, key: other})
    assert misfit(NOTE, {k: v for k, v in FITS.items() if k != key})


def test_a_note_is_read_as_it_was_written() -> None:
    assert read_note(NOTE.write()) == NOTE
    for broken in (b"", b"[]", b"{}", NOTE.write().replace(b"5", b'"5"'), b"\xff"):
        assert read_note(broken) is None


def test_another_machine_has_nothing_of_the_saved_one() -> None:
    made = saveheader.for_machine(saved_xml(SPEC), OTHER)
    root = ElementTree.fromstring(made)
    assert root.findtext("title") == "b" and root.findtext("uuid") == str(OTHER.uuid)
    assert root.findtext("genid") not in (str(uuid.UUID(int=9)), "")
    for gone in ("/i/", "/run/a/", "mailbox-a", str(SPEC.uuid), "a &amp; b"):
        assert gone not in made
    devices = [each.tag for each in root.iterfind("devices/*")]
    saved = ElementTree.fromstring(saved_xml(SPEC))
    assert devices and devices == [each.tag for each in saved.iterfind("devices/*")]


@pytest.mark.parametrize("field", ["memory", "cpus"])
def test_a_machine_of_another_size_is_refused(field: str) -> None:
    other = replace(OTHER, memory=4 * 1024**3) if field == "memory" else replace(OTHER, cpus=3)
    with pytest.raises(MailboxError):
        saveheader.for_machine(saved_xml(SPEC), other)


def split(content: bytes) -> tuple[bytes, bytes]:
    return content[: saveheader.LENGTH], content[saveheader.LENGTH :]


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")), st.binary())
def test_a_header_is_read_as_it_was_written(xml: str, cookie: bytes) -> None:
    header = saveheader.Header(xml, cookie, bytes(56))
    assert saveheader.parse(*split(saveheader.write(header))) == header


@pytest.mark.parametrize(
    "change",
    [
        lambda head: b"LibvirtQemudPart" + head[16:],
        lambda head: head[:16] + struct.pack("<I", 3) + head[20:],
        lambda head: head[:24] + struct.pack("<I", 0) + head[28:],  # it was paused
        lambda head: head[:28] + struct.pack("<I", 1) + head[32:],  # compressed
        lambda head: head[:32] + struct.pack("<I", 7) + head[36:],  # the cookie is elsewhere
        lambda head: head[:20] + struct.pack("<I", 2**31) + head[24:],
        lambda head: head[:50],
    ],
)
def test_what_is_not_known_exactly_is_refused(change: object) -> None:
    fixed, data = split(saveheader.write(saveheader.Header("<domain/>", b"cookie", bytes(56))))
    assert callable(change)
    with pytest.raises(MailboxError):
        saveheader.parse(change(fixed), data)


class Restoring:
    """A libvirt that opens what it restores so many times, and reads a header each time."""

    def __init__(self, opens: int) -> None:
        self._opens = opens
        self.memory = b""
        self.header: saveheader.Header | None = None

    def restoreFlags(self, path: str, _xml: None, _flags: int) -> None:  # noqa: N802
        for number in range(self._opens):
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                fixed = file.read(saveheader.LENGTH)
                try:
                    data = file.read(saveheader.data_length(fixed))
                    self.header = saveheader.parse(fixed, data)
                except MailboxError:
                    raise libvirt.libvirtError("image magic is incorrect") from None
                left = file.read(1024) if number == self._opens - 1 else b""
        if left.startswith(b"Libvirt"):
            raise libvirt.libvirtError("Not a migration stream")
        self.memory = left


@pytest.mark.parametrize("opens", [1, 2])
def test_the_memory_comes_after_the_header_however_often_that_is_read(
    opens: int, tmp_path: Path
) -> None:
    state = tmp_path / "warm.state"
    saved = saveheader.Header(saved_xml(SPEC), b"cookie", bytes(56))
    # More than fits into a pipe, as a machine's is.
    memory = b"memory of a machine, not of a customer" * 100_000
    state.write_bytes(saveheader.write(saved) + memory)
    digest = hashlib.sha256(state.read_bytes()).hexdigest()
    spec = replace(OTHER, channel_socket=tmp_path / "channel.sock")
    connection = Restoring(opens)
    warming.start_warm(cast(Any, connection), spec, state, digest)
    assert connection.memory == memory[:1024]
    assert connection.header is not None and str(OTHER.uuid) in connection.header.xml
    assert list(tmp_path.iterdir()) == [state]
    with pytest.raises(MailboxError) as refused:
        warming.start_warm(cast(Any, Restoring(3)), spec, state, digest)
    assert refused.value.code == "libvirt-error" and list(tmp_path.iterdir()) == [state]


def test_repair_ends_the_machine_of_a_killed_warming(
    house: House, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = house.images.newest(SETTINGS.client)
    with monkeypatch.context() as killed, pytest.raises(StoppedError):
        # Nothing of what is tidied up at the end happens.
        killed.setattr(warm, "_clear", lambda _folder: None)
        killed.setattr(type(house.machines), "save_empty", _interrupted)
        end = type(house.machines).destroy
        killed.setattr(
            type(house.machines),
            "destroy",
            lambda self, name: end(self, name) if not world.state["machines"] else None,
        )
        warm.warm_up(house, image, SHAPE)
    (domain,) = world.state["machines"]
    files.private_folder(house.paths.images)
    with lock.take_turn(house.paths.images / ".lock"):
        assert repair(house, None) == [], "one that runs is left alone"
    (plan,) = repairing(house, None)
    assert plan.name == domain and world.state["machines"]
    (done,) = repair(house, None)
    assert done.name == domain and done.facts == {"repaired": True}
    assert world.state["machines"] == {} and list(house.paths.runtime.glob(".*")) == []
    assert repair(house, None) == [] and repairing(house, None) == []


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
