"""The machine as XML: golden files to read in review, and what must never be in it."""

from __future__ import annotations

import uuid
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from lxml import etree

from sandbox.host.libvirt.domain_xml import domain_xml, volume_xml
from sandbox.model.machine import MachineSpec

DATA = Path(__file__).parents[1] / "data"
SCHEMAS = Path("/usr/share/libvirt/schemas")
FOLDER = Path("/run/user/1000/mailbox/clientA")
IMAGE = Path("/home/anna/.local/share/mailbox/images/thunderbird-0123456789abcdef")
EMULATED = MachineSpec(
    name="mailbox-clientA",
    uuid=uuid.UUID("00000000-0000-4000-8000-000000000001"),
    title="clientA - mailbox",
    memory=2 * 1024**3,
    cpus=2,
    kernel=IMAGE / "vmlinuz",
    initrd=IMAGE / "initrd.img",
    root_image=IMAGE / "root.erofs",
    channel_socket=FOLDER / "channel.sock",
    display_socket=FOLDER / "display.sock",
    console_log=FOLDER / "console.log",
    hardware=False,
)
HARDWARE = replace(EMULATED, hardware=True)
GOLDEN = {
    "domain-emulated.xml": domain_xml(EMULATED),
    "domain-hardware.xml": domain_xml(HARDWARE, owner=(1000, 1000)),
    "volume.xml": volume_xml(FOLDER / "volume.sock"),
}
HOSTILE = "/x/'\"<&>$y ${name}]]><!-- -->&amp;"
# Where each field of the specification is to be found.
PLACES = {
    "name": "name",
    "uuid": "uuid",
    "title": "title",
    "memory": "memory",
    "cpus": "vcpu",
    "kernel": "os/kernel",
    "initrd": "os/initrd",
    "root_image": "devices/disk/source@file",
    "channel_socket": "devices/channel/source@path",
    "display_socket": "devices/graphics@socket",
    "console_log": "devices/serial/source@path",
    "hardware": ".@type",
}


def find(tree: ET.Element, place: str) -> str | None:
    path, _, attribute = place.partition("@")
    found = tree.find(path)
    assert found is not None, place
    return found.get(attribute) if attribute else found.text


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_it_is_as_it_was_reviewed(name: str) -> None:
    """After a wanted change: python -m tests.unit.test_domain_xml writes the files anew."""
    assert GOLDEN[name] == (DATA / name).read_text()


def assert_valid(text: str, schema: str) -> None:
    file = SCHEMAS / f"{schema}.rng"
    if not file.exists():
        pytest.skip(f"libvirt's schemas are not installed: no {file}")
    rules = etree.RelaxNG(etree.parse(file))
    assert rules.validate(etree.fromstring(text)), str(rules.error_log)


@pytest.mark.parametrize("name", ["domain-emulated.xml", "domain-hardware.xml"])
def test_it_is_valid_by_libvirts_own_schema(name: str) -> None:
    assert_valid(GOLDEN[name], "domain")


def test_a_machine_with_its_volume_is_valid_too() -> None:
    whole = GOLDEN["domain-emulated.xml"].replace("<rng ", GOLDEN["volume.xml"] + "<rng ")
    assert "<serial>volume</serial>" in whole
    assert_valid(whole, "domain")


def test_the_schema_would_find_a_mistake() -> None:
    with pytest.raises(AssertionError):
        assert_valid(GOLDEN["domain-emulated.xml"].replace("readonly", "readonyl"), "domain")


def test_no_field_is_forgotten_here() -> None:
    assert set(PLACES) == {each.name for each in fields(MachineSpec)}


@pytest.mark.parametrize("name", sorted(PLACES))
def test_each_field_shows_up(name: str) -> None:
    expected = str(getattr(EMULATED, name))
    found = find(ET.fromstring(GOLDEN["domain-emulated.xml"]), PLACES[name])
    assert found == ("qemu" if name == "hardware" else expected)


@pytest.mark.parametrize(
    "name",
    sorted(set(PLACES) - {"uuid", "memory", "cpus", "hardware"}),
)
def test_a_hostile_value_stays_a_value(name: str) -> None:
    value = HOSTILE if name in ("name", "title") else Path(HOSTILE)
    tree = ET.fromstring(domain_xml(replace(EMULATED, **{name: value})))
    assert find(tree, PLACES[name]) == HOSTILE
    plain = ET.fromstring(GOLDEN["domain-emulated.xml"])
    assert [each.tag for each in tree.iter()] == [each.tag for each in plain.iter()]


def test_a_hostile_path_of_a_volume_stays_a_value() -> None:
    disk = ET.fromstring(volume_xml(Path(HOSTILE)))
    assert find(disk, "source/host@socket") == HOSTILE
    assert len(list(disk.iter())) == len(list(ET.fromstring(GOLDEN["volume.xml"]).iter()))


@pytest.fixture(params=["domain-emulated.xml", "domain-hardware.xml"])
def machine(request: pytest.FixtureRequest) -> ET.Element:
    return ET.fromstring(GOLDEN[request.param])


@pytest.mark.parametrize(
    "device",
    [
        *("interface", "sound", "filesystem", "hostdev", "redirdev", "smartcard", "shmem", "tpm"),
        *("parallel", "console", "vsock", "iommu", "hub", "watchdog", "panic", "nvram"),
    ],
)
def test_what_a_machine_never_has(machine: ET.Element, device: str) -> None:
    assert machine.findall(f".//{device}") == []


def test_the_devices_are_these_and_no_others(machine: ET.Element) -> None:
    devices = machine.find("devices")
    assert devices is not None
    tags = {each.tag for each in devices}
    assert tags == {
        *("controller", "disk", "channel", "serial", "input", "graphics"),
        *("video", "audio", "rng", "memballoon"),
    }


def test_the_only_disk_is_the_image_and_cannot_be_written(machine: ET.Element) -> None:
    (disk,) = machine.findall("devices/disk")
    assert disk.find("readonly") is not None
    assert find(disk, "serial") == "image"


def test_the_only_channel_is_ours(machine: ET.Element) -> None:
    (target,) = machine.findall("devices/channel/target")
    assert target.attrib == {"type": "virtio", "name": "org.mailbox.channel.0"}


def test_there_is_no_usb_and_no_sound(machine: ET.Element) -> None:
    models = {each.get("type"): each.get("model") for each in machine.findall("devices/controller")}
    assert models["usb"] == "none"
    assert [each.get("type") for each in machine.findall("devices/audio")] == ["none"]
    assert {each.get("bus") for each in machine.findall("devices/input")} == {"virtio"}


def test_the_display_listens_on_no_network(machine: ET.Element) -> None:
    (graphics,) = machine.findall("devices/graphics")
    assert set(graphics.attrib) == {"type", "socket"}
    assert list(graphics) == []


def test_a_crash_writes_no_guest_memory_and_no_pages_are_merged(machine: ET.Element) -> None:
    assert find(machine, "memory@dumpCore") == "off"
    assert machine.find("memoryBacking/nosharepages") is not None


def test_a_machine_that_ends_is_gone(machine: ET.Element) -> None:
    ends = [find(machine, tag) for tag in ("on_poweroff", "on_reboot", "on_crash")]
    assert ends == ["destroy"] * 3


def test_acceleration_decides_type_and_processor() -> None:
    emulated, hardware = (ET.fromstring(domain_xml(each)) for each in (EMULATED, HARDWARE))
    assert (find(emulated, ".@type"), find(emulated, "cpu@mode")) == ("qemu", "maximum")
    assert (find(hardware, ".@type"), find(hardware, "cpu@mode")) == ("kvm", "host-passthrough")


def test_all_processors_are_in_one_socket(machine: ET.Element) -> None:
    topology = machine.find("cpu/topology")
    assert topology is not None
    assert topology.attrib == {"sockets": "1", "dies": "1", "cores": "2", "threads": "1"}


def test_only_a_system_libvirt_is_told_whose_machine_it_is() -> None:
    assert ET.fromstring(domain_xml(EMULATED)).find("seclabel") is None
    label = ET.fromstring(domain_xml(EMULATED, owner=(1000, 1001))).find("seclabel/label")
    assert label is not None and label.text == "+1000:+1001"


def test_the_volume_is_named_to_the_guest_and_its_key_to_nobody() -> None:
    disk = ET.fromstring(GOLDEN["volume.xml"])
    assert find(disk, "serial") == "volume"
    assert find(disk, "source/host@transport") == "unix"
    assert [each.tag for each in disk.iter() if each.tag in ("encryption", "secret", "auth")] == []


if __name__ == "__main__":
    for name, text in GOLDEN.items():
        (DATA / name).write_text(text)
