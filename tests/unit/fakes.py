"""In-memory hosts that keep honest: every port of `sandbox/ports.py`, without a daemon.

The world rests in one JSON file, so that a second process (or the next command after a kill) sees
what the first one did. Every effect passes through `World.point` before and after it happens.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from unittest import mock

from sandbox.host import header_backup, keyslots, luks, volume_end, volumes
from sandbox.host.images import ImageStore
from sandbox.host.leftovers import Folders, Leftovers
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import KeyChoice, Wish
from sandbox.model.account import Account
from sandbox.model.dav import Collection as DavCollection
from sandbox.model.dav import Named, Password
from sandbox.model.endpoints import Endpoint
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.inventory import Copy
from sandbox.model.keydetails import (
    HERE,
    NOWHERE,
    VALID,
    Details,
    NewKey,
    Part,
    Reason,
    UserId,
)
from sandbox.model.keys import ExportedKeys, Key
from sandbox.model.machine import Image, MachineSpec, MachineState, Shape, domain_name
from sandbox.model.offers import Offer, Reading, ReadKey, Way
from sandbox.model.profile import Display, Machine, Policy, Settings
from sandbox.model.remains import Searched, Sought
from sandbox.model.smime import CertificateFacts
from sandbox.model.warm import WarmFailure, WarmNote
from sandbox.state import files
from sandbox.state.paths import Paths
from sandbox.state.records import Records
from tests.unit.fake_luks import PAYLOAD, luks_bytes

SHIPPED = Path(__file__).parents[2] / "profiles"
NAME = "clientA"
PASSWORD = "s3cret-mail-password"
DAV_WORD = "another-s3cret-for-calendars"
OWN = "A" * 40
BERT = "B" * 40
EXIT_KILLED = 137
NEW = NewKey()
# When a key of these tests ends that was extended: 2040-01-01.
EXTENDED = 2208988800
# The recovery codes that were handed over, the newest last.
CODES: list[str] = []
_SIGNATURE = b"FILESYSTEM"
_EMPTY: dict[str, Any] = {
    key: {} for key in ("vault", "machines", "wardens", "served", "custodians")
}


@dataclass
class GuestManners:
    """How the machine behaves."""

    silent: bool = False
    hangs: bool = False
    error: tuple[str, str] | None = None
    warnings: tuple[tuple[str, str], ...] = ()
    last_words: tuple[tuple[str, str], ...] = ()
    dies: bool = False
    # As one whose kernel panics when it goes on from the warm state.
    warm_dies: bool = False
    # What is wrong with a key, by its fingerprint; None: nothing is said of it.
    keys: Mapping[str, str | None] = field(default_factory=dict)


class World:
    """What is outside of `mailbox`: its state, its faults, and the moments it may be killed at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.guest = GuestManners()
        self.faults: dict[str, BaseException] = {}
        self.no_fuse: str | None = None
        self.labels: list[str] = []
        self.kill_at: int | None = None
        self.watch: Callable[[str], object] = lambda _label: None
        self.said: list[str] = []
        self.warned: list[str] = []
        self.desired: list[Mapping[str, Any]] = []
        self.expiries: dict[str, int] = {}
        self.published: dict[str, bytes] = {}
        self.passwords = {Password.MAIL: PASSWORD, Password.OWN: DAV_WORD}
        self.keys: dict[str, tuple[str, str]] = {
            OWN: ("anna@kunde.test", ""),
            BERT: ("b@p.test", ""),
        }
        self._file = root / "world.json"

    @property
    def state(self) -> dict[str, Any]:
        if not self._file.exists():
            return {key: {} for key in _EMPTY}
        state: dict[str, Any] = json.loads(self._file.read_text())
        return state

    def point(self, label: str) -> None:
        """A moment between two things that happen; the process may end here."""
        self.labels.append(label)
        self.watch(label)
        if self.kill_at == len(self.labels):
            os._exit(EXIT_KILLED)

    @contextlib.contextmanager
    def change(self, label: str) -> Iterator[dict[str, Any]]:
        """One effect: the state as it is, kept as it was made."""
        self.point(f"before {label}")
        if label in self.faults:
            raise self.faults[label]
        state = self.state
        yield state
        self._file.write_text(json.dumps(state))
        self.point(f"after {label}")

    # Progress (sandbox.lifecycle.engine.Progress)

    def step(self, title: str) -> None:
        self.said.append(title)

    def detail(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


class FakeVault:
    """A keyring that keeps, finds and forgets."""

    def __init__(self, world: World) -> None:
        self._world = world

    @staticmethod
    def new_key() -> bytes:
        return base64.b64encode(os.urandom(32))

    def check(self) -> None:
        with self._world.change("vault.check"):
            pass

    def put(self, profile: uuid.UUID, kind: str, secret: str) -> None:
        with self._world.change(f"vault.put {kind}") as state:
            state["vault"][f"{profile}/{kind}"] = secret

    def get(self, profile: uuid.UUID, kind: str) -> str | None:
        with self._world.change(f"vault.get {kind}") as state:
            found: str | None = state["vault"].get(f"{profile}/{kind}")
        return found

    def delete(self, profile: uuid.UUID, kind: str) -> bool:
        with self._world.change(f"vault.delete {kind}") as state:
            return state["vault"].pop(f"{profile}/{kind}", None) is not None


class FakeVolumes:
    """Small real files; all but the making of the header is the real module's work."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create(self, path: Path, size: int, key: bytes) -> None:
        def make(target: Path, _size: int, _key: bytes) -> None:
            with self._world.change("volumes.create"):
                target.touch(0o600)
                target.write_bytes(luks_bytes(key))

        with mock.patch.object(volumes, "_make", make):
            volumes.create(path, size, key)

    def create_for_memory(self, path: Path, size: int, key: bytes) -> None:
        with self._world.change("volumes.create_for_memory"):
            files.private_folder(path.parent)
            files.replace(path, luks_bytes(key))

    def adopt(self, source: Path, path: Path) -> bool:
        with self._world.change("volumes.adopt"):
            return volumes.adopt(source, path)

    def look(self, path: Path) -> volumes.VolumeFacts | None:
        return volumes.look(path)

    def check(self, path: Path) -> None:
        volumes.check(path)

    def erase_header(self, path: Path) -> bool:
        with self._world.change("volumes.erase_header"):
            return volumes.erase_header(path)

    def remove(self, path: Path) -> None:
        with self._world.change("volumes.remove"):
            volumes.remove(path)


class FakeKeyslots:
    """The real module on small real files, but in no hurry to be slow."""

    def __init__(self, world: World) -> None:
        self._world = world

    def find(self, path: Path, passphrase: bytes) -> int | None:
        return keyslots.find(path, passphrase)

    def active(self, path: Path) -> tuple[int, ...]:
        return keyslots.active(path)

    def fingerprints(self, path: Path) -> dict[str, str]:
        return keyslots.fingerprints(path)

    def expected_size(self, path: Path, size: int) -> int:
        # Volumes of these tests are smaller than any that a profile may ask for.
        return PAYLOAD + 3 * 1024 + size - SETTINGS.volume_size

    def add(self, path: Path, slot: int, opening: bytes, new: bytes, *, slow: bool) -> None:
        with self._world.change(f"keyslots.add {slot}"):
            keyslots.add(path, slot, opening, new, slow=False)

    def kill(self, path: Path, slot: int, opening: bytes) -> None:
        with self._world.change(f"keyslots.kill {slot}"):
            keyslots.kill(path, slot, opening)


class FakeRemains:
    """The real search and clearing, in a home below the world's root."""

    def __init__(self, world: World) -> None:
        self._world = world
        base = world.root / "home"
        folders = Folders(base / "config", base / "data", base / "cache", base / "runtime")
        self._real = Leftovers("qemu:///session", folders)

    def describe(self, volume: Path) -> Mapping[str, Any]:
        return volume_end.describe(volume)

    def opens(self, volume: Path, key: bytes) -> bool | None:
        try:
            return opens(volume, key) if volume.exists() else None
        except luks.BadHeaderError:
            return False

    def discard(self, volume: Path) -> bool | None:
        with self._world.change("remains.discard"):
            return True if volume.exists() else None

    def clear(self, domain: str, identity: str, pictures: Mapping[Path, str]) -> dict[str, int]:
        with self._world.change("remains.clear"):
            return self._real.clear(domain, identity, pictures)

    def medium(self, volume: Path) -> Mapping[str, Any]:
        disk = {"name": "sda", "model": "Disk", "serial": "S1", "kind": "flash"}
        return {"file_system": "ext4", "encryption": "plain", "disks": [disk], "swap": "none"}

    def copies(self, volume: Path) -> tuple[Copy, ...]:
        return (Copy("backup:Timeshift", "data", "/etc/timeshift.json", False, None),)

    def places(self) -> tuple[Path, ...]:
        return self._real.places()

    def search(self, sought: Sought) -> Searched:
        with self._world.change("remains.search"):
            return self._real.search(sought)


class FakeHeaders:
    """Copies of headers: the real module's work."""

    def __init__(self, world: World) -> None:
        self._world = world

    def back_up(self, volume: Path, backup: Path) -> str:
        with self._world.change("headers.back_up"):
            return header_backup.back_up(volume, backup)

    def digest(self, backup: Path) -> str | None:
        return header_backup.digest(backup)

    def restore(self, volume: Path, backup: Path, noted: str) -> None:
        with self._world.change("headers.restore"):
            header_backup.restore(volume, backup, noted)

    def destroy(self, backup: Path) -> bool:
        with self._world.change("headers.destroy"):
            return header_backup.destroy(backup)


def opens(path: Path, key: bytes) -> bool:
    """Whether the key unlocks the volume."""
    with contextlib.suppress(luks.BadHeaderError):
        return luks.find_slot(path.read_bytes()[:PAYLOAD], key) is not None
    return False


def mails(path: Path) -> int:
    """How often a mail client has written to the volume."""
    data = path.read_bytes()[PAYLOAD:]
    return data[len(_SIGNATURE)] if data.startswith(_SIGNATURE) else 0


def _use(path: Path, blank: bool) -> bool:
    """What a guest does with its volume; False when there is no file system on it."""
    with path.open("r+b") as file:
        file.seek(PAYLOAD)
        data = file.read(len(_SIGNATURE) + 1)
        formatted = data.startswith(_SIGNATURE)
        if not formatted and not blank:
            return False
        count = data[-1] if formatted else 0
        file.seek(PAYLOAD)
        file.write(_SIGNATURE + bytes([count + 1]))
    return True


class FakeMachines:
    """Machines that refuse a second start, and take a volume only with its key."""

    def __init__(self, world: World) -> None:
        self._world = world

    def states(self) -> dict[str, MachineState]:
        with self._world.change("machines.states") as state:
            return {k: MachineState(v["state"]) for k, v in state["machines"].items()}

    def state(self, name: str) -> MachineState:
        with self._world.change("machines.state") as state:
            found = state["machines"].get(name)
        return MachineState(found["state"]) if found else MachineState.CLOSED

    def start(self, spec: MachineSpec) -> None:
        with self._world.change("machines.start") as state:
            if spec.name in state["machines"]:
                raise MailboxError("libvirt could not start the machine.", code="libvirt-error")
            spec.channel_socket.touch()
            spec.console_log.write_bytes(b"boot \x1b[31mred\nlast words\n")
            state["machines"][spec.name] = {"state": "open", "volume": None}

    def start_warm(self, spec: MachineSpec, state: Path, digest: str) -> None:
        if hashlib.sha256(state.read_bytes()).hexdigest() != digest:
            raise MailboxError("The saved machine cannot be used.", code="saved-machine-unknown")
        with self._world.change("machines.start_warm") as known:
            assert spec.name not in known["machines"]
            spec.channel_socket.touch()
            known["machines"][spec.name] = {"state": "open", "volume": None, "warm": True}

    def save_empty(self, name: str, target: Path) -> None:
        with self._world.change("machines.save_empty") as state:
            assert state["machines"][name]["volume"] is None
            target.write_bytes(b"memory")
            end_machine(state, name)

    def resume(self, name: str) -> None:
        with self._world.change("machines.resume") as state:
            machine = state["machines"][name]
            # What it remembers of its volume must be what is on it.
            assert machine.pop("mails", mails_of(machine)) == mails_of(machine)
            machine["state"] = "open"

    def save(self, name: str, target: Path) -> None:
        with self._world.change("machines.save") as state:
            served = state["served"].get(str(target))
            assert served, "memory went to a plain file"
            machine = state["machines"][name]
            memory = {"name": name, "volume": machine["volume"], "mails": mails_of(machine)}
            memory["password"] = machine["password"]
            state["memory"] = {**state.get("memory", {}), served: memory}
            end_machine(state, name)

    def restore(self, name: str, source: Path, volume_socket: Path) -> None:
        with self._world.change("machines.restore") as state:
            memory = state.get("memory", {}).get(state["served"].get(str(source)))
            if memory is None or memory["name"] != name or name in state["machines"]:
                raise MailboxError("libvirt could not bring it back.", code="libvirt-error")
            volume = state["served"][str(volume_socket)]
            resumed = {"state": "paused", "volume": volume, "mails": memory["mails"]}
            state["machines"][name] = resumed | {"password": memory["password"]}

    def traits(self, spec: MachineSpec) -> dict[str, str]:
        return {"machine": f"{spec.memory} {spec.cpus}", "qemu": "7", "libvirt": "9", "cpu": "a"}

    def has_volume(self, name: str) -> bool:
        with self._world.change("machines.has_volume") as state:
            return bool(state["machines"].get(name, {}).get("volume"))

    def attach_volume(self, name: str, volume_socket: Path) -> None:
        with self._world.change("machines.attach_volume") as state:
            if name not in state["machines"]:
                raise MailboxError("The machine ended.", code="machine-gone")
            if state["machines"][name]["volume"] or str(volume_socket) not in state["served"]:
                raise MailboxError("Not plugged.", code="volume-not-attached")
            state["machines"][name]["volume"] = state["served"][str(volume_socket)]

    def slow_down(self, name: str) -> None:
        with self._world.change("machines.slow_down"):
            pass

    def wait_gone(self, name: str, deadline_s: float) -> bool:
        return self.state(name) is MachineState.CLOSED

    def destroy(self, name: str) -> None:
        with self._world.change("machines.destroy") as state:
            end_machine(state, name)

    def screenshot(self, name: str) -> bytes:
        with self._world.change("machines.screenshot") as state:
            if name not in state["machines"]:
                raise MailboxError("Closed.", code="machine-closed", exit_code=Exit.MACHINE)
        return b"P6 1 1 255\n\xff\x00\x00"


def mails_of(machine: dict[str, Any]) -> int:
    """What is on the volume of a machine."""
    return mails(Path(machine["volume"])) if machine["volume"] else 0


class FakeStorage:
    """Volumes shown as files and disks; who has the wrong key sees nothing."""

    def __init__(self, world: World) -> None:
        self._world = world

    def suspend_problem(self) -> str | None:
        return self._world.no_fuse

    def serve_file(self, volume: Path, key: bytes, place: Path) -> None:
        self._serve("storage.serve_file", volume, key, place)

    def serve_disk(self, volume: Path, key: bytes, place: Path) -> None:
        self._serve("storage.serve_disk", volume, key, place)

    def _serve(self, label: str, volume: Path, key: bytes, place: Path) -> None:
        with self._world.change(label) as state:
            assert place.parent.is_dir()
            if not opens(volume, key):
                raise MailboxError("Wrong key.", code="volume-key-wrong")
            state["served"].pop(str(place), None)
            assert str(volume) not in state["served"].values(), "two at one volume"
            state["served"][str(place)] = str(volume)

    def serves(self, place: Path) -> bool:
        return str(place) in self._world.state["served"]

    def end(self, place: Path) -> None:
        if str(place) in self._world.state["served"]:
            with self._world.change("storage.end") as state:
                del state["served"][str(place)]

    def digest(self, volume: Path) -> str:
        return hashlib.sha256(volume.read_bytes()).hexdigest()


def end_machine(state: dict[str, Any], name: str) -> None:
    """The machine ends; its warden notices, and lingers until it is told to go."""
    state["machines"].pop(name, None)
    for warden in state["wardens"].values():
        if warden["machine"] == name:
            warden["state"] = "lost"


class FakeWarden:
    """The client of one warden."""

    def __init__(self, world: World, control: str) -> None:
        self._world = world
        self._control = control

    def _me(self, state: dict[str, Any]) -> dict[str, Any]:
        if self._control not in state["wardens"]:
            raise MailboxError("No warden.", code="warden-gone", exit_code=Exit.MACHINE)
        found: dict[str, Any] = state["wardens"][self._control]
        return found

    def status(self, timeout: float = 5.0) -> Any:
        with self._world.change("warden.status") as state:
            me = self._me(state)
            forwards = [SimpleNamespace(**each) for each in me["config"]["forwards"]]
            if agent := me["config"].get("agent"):
                forwards.append(SimpleNamespace(name="gpg-agent", listen=agent["listen"], port=0))
            return SimpleNamespace(state=me["state"], forwards=forwards)

    def wait_ready(self, deadline_s: float) -> Any:
        with self._world.change("warden.wait_ready") as state:
            me = self._me(state)
            warm = state["machines"].get(me["machine"], {}).get("warm", False)
            if self._world.guest.dies or (warm and self._world.guest.warm_dies):
                end_machine(state, me["machine"])
            if me["state"] == "lost":
                raise MailboxError("The channel broke.", code="channel-lost")
            if self._world.guest.silent or me["machine"] not in state["machines"]:
                raise MailboxError("The machine does not answer.", code="machine-silent")
            me["state"] = "ready"

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "mail-user",
        stdin: BinaryIO | bytes | None = None,
        stdout: BinaryIO,
        stderr: BinaryIO,
    ) -> int:
        with self._world.change("warden.run") as state:
            self._me(state)
        stdout.write(f"{user}: {' '.join(argv)}\n".encode())
        return 0

    def provision(
        self,
        desired: Mapping[str, Any],
        on_event: Callable[[Any], None],
        deadline_s: float,
    ) -> Any:
        guest = self._world.guest
        self._world.desired.append(desired)
        with self._world.change("warden.provision") as state:
            me = self._me(state)
            if me["state"] != "ready":
                raise MailboxError("The channel broke.", code="channel-lost")
            plugged = state["machines"][me["machine"]]["volume"]
            if not plugged:
                return _failed("volume-missing", "no disk named volume")
            if not _use(Path(plugged), desired["volume"]["blank"]):
                return _failed("volume-damaged", "no file system")
            incoming = desired["account"]["incoming"]
            state["machines"][me["machine"]]["password"] = incoming["password"]
        on_event(_event("phase", name="home"))
        if guest.error:
            return _failed(*guest.error)
        on_event(_event("phase", name="ready"))
        warnings = [_event("warning", code=code, message=text) for code, text in guest.warnings]
        return SimpleNamespace(ok=True, warnings=warnings, error=None)

    def tell(self, verb: str, deadline_s: float, wish: Mapping[str, Any] | None = None) -> Any:
        with self._world.change(f"warden.tell {verb}") as state:
            me = self._me(state)
            if me["state"] != "ready" or self._world.guest.hangs:
                raise MailboxError("The machine does not answer.", code="machine-silent")
            if self._world.guest.error:
                return _failed(*self._world.guest.error)
            if verb == "resume":
                # The mail that came meanwhile.
                _use(Path(state["machines"][me["machine"]]["volume"]), blank=False)
        checked = [_event("checked", name=key, message=text) for key, text in self._tried(wish)]
        return SimpleNamespace(ok=True, warnings=[], error=None, checked=checked)

    def _tried(self, wish: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
        others = [each["fingerprint"] for each in wish["correspondents"]] if wish else []
        for key in [*([wish["own"]] if wish and wish["own"] else []), *others]:
            problem = self._world.guest.keys.get(key, "")
            if problem is not None:
                yield key, problem

    def shutdown(self, deadline_s: float, on_event: Callable[[Any], None]) -> bool:
        for code, text in self._world.guest.last_words:
            on_event(_event("warning", code=code, message=text))
        with self._world.change("warden.shutdown") as state:
            me = self._me(state)
            if self._world.guest.hangs or me["state"] != "ready":
                raise MailboxError("The machine does not answer.", code="machine-silent")
            end_machine(state, me["machine"])
        return True

    def stop(self, timeout: float = 15.0) -> None:
        with self._world.change("warden.stop") as state:
            self._me(state)
            hang_up(state, self._control)


def hang_up(state: dict[str, Any], control: str) -> None:
    """End a warden; a running machine's guest says on its console that it saw that."""
    ended = state["wardens"].pop(control, None)
    console = Path(control).with_name("console.log")
    if ended and ended["machine"] in state["machines"] and console.exists():
        with console.open("ab") as file:
            file.write(b"mailbox: channel: sshd ended\n")


def _event(kind: str, *, name: str = "", code: str = "", message: str = "") -> Any:
    return SimpleNamespace(kind=kind, name=name, code=code, message=message)


def _failed(code: str, message: str) -> Any:
    error = _event("error", code=code, message=message)
    return SimpleNamespace(ok=False, warnings=[], error=error)


class FakeWardens:
    """Wardens: one for each control socket; a second one finds the lock taken and leaves."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, config: Mapping[str, Any]) -> None:
        with self._world.change("wardens.start") as state:
            control = str(config["control_socket"])
            name = str(config["name"])
            machine = name if name.startswith("warm-") else domain_name(name)
            new = {"machine": machine, "state": "connecting", "config": dict(config)}
            state["wardens"].setdefault(control, new)

    def find(self, control_socket: Path) -> FakeWarden:
        return FakeWarden(self._world, str(control_socket))

    def answers(self, control_socket: Path) -> bool:
        return str(control_socket) in self._world.state["wardens"]

    def kill(self, control_socket: Path) -> None:
        with self._world.change("wardens.kill") as state:
            hang_up(state, str(control_socket))


class FakeCustodians:
    """Custodians: one for each control socket."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, config: Mapping[str, Any]) -> None:
        with self._world.change("custodians.start") as state:
            state["custodians"][str(config["control"])] = dict(config)

    def allow(self, control: Path, seconds: float) -> bool:
        with self._world.change("custodians.allow") as state:
            return str(control) in state["custodians"]

    def stop(self, control: Path, ring: Path | None = None) -> None:
        with self._world.change("custodians.stop") as state:
            state["custodians"].pop(str(control), None)


class FakeImages:
    """One image, as it was built."""

    def __init__(self, world: World) -> None:
        self._world = world

    def newest(self, client: str) -> Image:
        with self._world.change("images.newest"):
            updated = self._world.root / "image-id"
            identity = updated.read_text() if updated.exists() else "0123456789abcdef"
            return Image(identity, client, "2026-01-01T00:00:00Z", self._world.root)

    def verify(self, image: Image) -> None:
        with self._world.change("images.verify"):
            pass

    def warm_note(self, image: Image, shape: Shape) -> WarmNote | None:
        return ImageStore(self._world.root).warm_note(image, shape)

    def warm_failure(self, image: Image, shape: Shape) -> WarmFailure | None:
        return ImageStore(self._world.root).warm_failure(image, shape)

    def note_failure(self, image: Image, shape: Shape, failure: WarmFailure) -> None:
        ImageStore(self._world.root).note_failure(image, shape, failure)

    def keep_warm(self, image: Image, shapes: Collection[Shape]) -> None:
        ImageStore(self._world.root).keep_warm(image, shapes)

    def new_warm_state(
        self, image: Image, shape: Shape, fits: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[Path]:
        return ImageStore(self._world.root).new_warm_state(image, shape, fits)

    def alone(
        self, purpose: str, on_wait: Callable[[str], None]
    ) -> contextlib.AbstractContextManager[None]:
        return ImageStore(self._world.root).alone(purpose, on_wait)

    def is_changing(self) -> bool:
        return ImageStore(self._world.root).is_changing()

    def built(self, client: str) -> Image | None:
        return None

    def leftovers(self) -> list[str]:
        return ImageStore(self._world.root).leftovers()

    def clear(self, progress: Callable[[str], None]) -> None:
        ImageStore(self._world.root).clear(progress)

    def make(self, client: str, progress: Callable[[str], None]) -> Path:
        raise NotImplementedError  # tests/unit/test_images.py builds with the real store

    def place(self, made: Path) -> Image:
        raise NotImplementedError

    def remove(self, image: Any) -> None:
        ImageStore(self._world.root).remove(image)


class FakeServers:
    """Mail servers that accept the passwords of `World.passwords`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def check(
        self, imap: Endpoint, smtp: Endpoint, login: str, password: str, ca_pem: str | None
    ) -> Any:
        with self._world.change("servers.check"):
            if password != self._world.passwords[Password.MAIL]:
                raise MailboxError("Wrong password.", code="login-refused", exit_code=Exit.SERVER)
        return {"imap": str(imap), "smtp": str(smtp)}

    def collections(
        self, wanted: Sequence[Named], ca_pem: str | None
    ) -> list[tuple[DavCollection, ...]]:
        """A place stands for one collection; what has a path is one itself."""
        with self._world.change("servers.collections"):
            right = self._world.passwords
            if any(each.password != right[each.collection.password] for each in wanted):
                raise MailboxError("Wrong password.", code="login-refused", exit_code=Exit.SERVER)
        return [
            (replace(each.collection, url=f"{each.collection.url}found/"),)
            if each.collection.is_place
            else (each.collection,)
            for each in wanted
        ]


class FakeHost:
    """A computer without acceleration and without a desktop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.shown: list[tuple[str, str]] = []

    def hardware(self) -> bool:
        return False

    def time_zone(self) -> str:
        return "Europe/Berlin"

    def keyboard(self) -> str:
        return "de"

    def show(self, domain: str, title: str) -> bool:
        self.shown.append((domain, title))
        return True

    def warm_later(self, client: str) -> None:
        self._world.said.append(f"Warming {client} later")

    def guard_sleep(self) -> None:
        self._world.said.append("Guarding the sleep")


class FakeUserKeyring:
    """The user's GnuPG: `World.keys` by fingerprint, each with its address and passphrase."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _known(self, fingerprint: str) -> tuple[str, str]:
        if fingerprint not in self._world.keys:
            raise MailboxError("No such key.", code="key-not-found", exit_code=Exit.KEYS)
        return self._world.keys[fingerprint]

    def public(self, fingerprint: str) -> bytes:
        return f"public {fingerprint} {self._known(fingerprint)[0]}".encode()

    def publics(self, fingerprints: Sequence[str]) -> dict[str, bytes]:
        return {each: self.public(each) for each in fingerprints}

    def has_secret(self, fingerprint: str) -> bool:
        return fingerprint in self._world.keys

    def describe(self, fingerprint: str) -> Details | None:
        if not self.has_secret(fingerprint):
            return None
        card = "D276000124010304FF00123456780000"
        part = Part(fingerprint, "rsa2048", ("certify", "sign"), 1, None, VALID, card)
        return Details((UserId("A <a@b.test>", VALID),), (part,))

    def secret(self, fingerprint: str, ask: Callable[[str], str]) -> tuple[bytes, str]:
        address, passphrase = self._known(fingerprint)
        said = ask(fingerprint) if passphrase else ""
        if said != passphrase:
            raise MailboxError("Wrong.", code="key-passphrase-wrong", exit_code=Exit.KEYS)
        return f"secret {fingerprint} {address}".encode(), said


class FakeKeySources:
    """Servers of keys: `World.published` by what is asked for, such as an address."""

    def __init__(self, world: World) -> None:
        self._world = world

    def web_key(self, address: str, way: Way) -> tuple[str, bytes]:
        return "https://openpgpkey.p.test/hu/x", self._published(address)

    def key_server(self, server: str, wanted: str, way: Way) -> tuple[str, bytes]:
        return server, self._published(wanted)

    def fetch_mail(
        self, imap: Endpoint, login: str, password: str, ca_pem: str | None, message_id: str
    ) -> bytes:
        assert password == PASSWORD and imap == ACCOUNT.imap
        return self._published(message_id)

    def _published(self, wanted: str) -> bytes:
        if wanted not in self._world.published:
            raise MailboxError("No key.", code="key-not-found", exit_code=Exit.KEYS)
        return self._world.published[wanted]


class FakeCertificates:
    """Certificates `p12 FINGERPRINT ADDRESS PASSPHRASE`; `World.expiries` says when they end."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(
        self, content: bytes, ask: Callable[[str], str], passphrase: str
    ) -> tuple[CertificateFacts, bytes]:
        kind, fingerprint, address, locked = (*content.decode().split(" "), "", "", "")[:4]
        if kind != "p12":
            raise MailboxError("No certificate.", code="smime-unusable", exit_code=Exit.KEYS)
        if locked and ask("") != locked:
            raise MailboxError("Wrong.", code="smime-passphrase-wrong", exit_code=Exit.KEYS)
        locked_anew = f"p12 {fingerprint} {address} {passphrase}".encode()
        return self._facts(fingerprint, address), locked_anew

    def read(self, content: bytes, passphrase: str) -> CertificateFacts:
        _, fingerprint, address, locked = content.decode().split(" ")
        assert locked == passphrase
        return self._facts(fingerprint, address)

    def _facts(self, fingerprint: str, address: str) -> CertificateFacts:
        ends = self._world.expiries.get(fingerprint, 4_000_000_000)
        return CertificateFacts(
            fingerprint=fingerprint,
            subject=f"CN={address}",
            issuer="CN=CA",
            addresses=(address,),
            begins=datetime(2020, 1, 1, tzinfo=UTC),
            ends=datetime.fromtimestamp(ends, UTC),
            signs=True,
            encrypts=True,
            for_mail=True,
            pem="PEM",
        )


class FakeKeyReader:
    """Reads `public FINGERPRINT ADDRESS`, one key a line; all of them can be used."""

    def read(self, untrusted: Sequence[bytes]) -> list[Reading]:
        return [self._read(content.decode()) for content in untrusted]

    def _read(self, text: str) -> Reading:
        try:
            found = [_armored(line.encode(), "public") for line in text.splitlines()]
        except MailboxError:
            return Reading((), ("holds a secret key" if "secret" in text else "holds no key",))
        keys = [Key(each, (address,), (address,), "E", "u", None) for each, address in found]
        return Reading(
            tuple(ReadKey(key, f"public {key.fingerprint} {key.addresses[0]}") for key in keys)
        )


class FakeProfileKeyring:
    """A key ring in a real folder: one file a key; secret ones name what protects them."""

    def __init__(self, world: World, home: Path) -> None:
        self._world = world
        self._home = home

    def create(self) -> None:
        with self._world.change("keyring.create"):
            self._home.mkdir(parents=True, exist_ok=True)

    def destroy(self) -> None:
        with self._world.change("keyring.destroy"):
            shutil.rmtree(self._home, ignore_errors=True)

    def generate(self, name: str, address: str, passphrase: str, wish: NewKey = NEW) -> str:
        made = (OWN, *("E" * 39 + digit for digit in "0123456789ABCDEF"))
        new = next(each for each in made if not (self._home / f"{each}.public").exists())
        with self._world.change("keyring.generate"):
            self._write("secret", new, passphrase)
            self._write("public", new, address)
            self._keep_certificate(new)
        return new

    def add_own(
        self,
        armored: bytes,
        old: str,
        new: str,
        ask: Callable[[str], str],
        *,
        retired: bool = False,
    ) -> Key:
        with self._world.change("keyring.add_own"):
            fingerprint, address = _armored(armored, "secret")
            self._write("secret", fingerprint, new)
            self._write("public", fingerprint, address)
            self._keep_certificate(fingerprint)
        return Key(fingerprint, (address,), (address,), "ESC", "u", None, secret=True)

    def add_correspondents(self, public: Sequence[str]) -> None:
        with self._world.change("keyring.add_correspondents"):
            for armored in public:
                self._write("public", *_armored(_plain(armored), "public"))

    def export(self, fingerprint: str, passphrase: str) -> ExportedKeys:
        with self._world.change("keyring.export"):
            if (self._home / f"{fingerprint}.secret").read_text() != passphrase:
                raise MailboxError("Locked.", code="key-locked", exit_code=Exit.KEYS)
        return ExportedKeys(fingerprint, f"secret {fingerprint}", passphrase, "public")

    def public(self, fingerprints: list[str]) -> dict[str, str]:
        there = {each: self._home / f"{each}.public" for each in fingerprints}
        return {
            each: f"public {each} {path.read_text()}"
            for each, path in there.items()
            if path.exists()
        }

    def published(self, fingerprint: str, address: str) -> bytes:
        if (self._home / f"{fingerprint}.public").read_text() != address:
            raise MailboxError("No such user id.", code="key-unusable", exit_code=Exit.KEYS)
        return f"published {fingerprint} {address}".encode()

    def look(self, fingerprints: list[str]) -> list[Key]:
        kept = [each for each in fingerprints if (self._home / f"{each}.public").exists()]
        secret = [each for each in kept if (self._home / f"{each}.secret").exists()]
        ends = {each: self._ends(each) for each in kept}
        dead = {each: "r" for each in kept if (self._home / f"{each}.revoked").exists()}
        who = (("A <a@b.test>",), ("a@b.test",))
        return [
            Key(each, *who, "ESC", dead.get(each, "u"), ends[each], each in secret) for each in kept
        ]

    def _ends(self, fingerprint: str) -> int | None:
        noted = self._home / f"{fingerprint}.ends"
        return int(noted.read_text()) if noted.exists() else self._world.expiries.get(fingerprint)

    def _keep_certificate(self, fingerprint: str) -> None:
        path = self._home / "openpgp-revocs.d" / f"{fingerprint}.rev"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"revokes {fingerprint}")

    def _write(self, kind: str, fingerprint: str, text: str) -> None:
        (self._home / f"{fingerprint}.{kind}").write_text(text)


def _plain(text: str) -> bytes:
    """What an armor holds."""
    if not text.startswith("-----BEGIN"):
        return text.encode()
    return base64.b64decode(text.partition("\n\n")[2].partition("\n=")[0])


class FakeOwnKeyring:
    """The own keys in the same folder: revoked and extended by files beside them."""

    def __init__(self, world: World, home: Path) -> None:
        self._world = world
        self._home = home

    def describe(self, fingerprint: str) -> Details | None:
        if not self._file(fingerprint, "public").exists():
            return None
        here = HERE if self._file(fingerprint, "secret").exists() else NOWHERE
        state = "revoked" if self._file(fingerprint, "revoked").exists() else VALID
        primary = Part(fingerprint, "ed25519", ("certify", "sign"), 1, None, state, here)
        subkey = Part(fingerprint[::-1], "cv25519", ("encrypt",), 1, None, state, here)
        return Details((UserId("A <a@b.test>", VALID),), (primary, subkey))

    def extend(self, fingerprint: str, lasts: str, passphrase: str) -> Details:
        with self._world.change("own.extend"):
            assert self._file(fingerprint, "secret").read_text() == passphrase
            self._file(fingerprint, "ends").write_text(str(EXTENDED))
        return self._described(fingerprint)

    def update(self, fingerprint: str, armored: bytes) -> Details:
        with self._world.change("own.update"):
            known, address = _armored(armored, "public")
            assert known == fingerprint
            if self._file(fingerprint, "secret").exists():
                self._file(fingerprint, "ends").write_text(str(EXTENDED))
            else:
                self._file(fingerprint, "public").write_text(address)
        return self._described(fingerprint)

    def certificate(self, fingerprint: str) -> bytes | None:
        path = self._home / "openpgp-revocs.d" / f"{fingerprint}.rev"
        return path.read_bytes() if path.exists() else None

    def make_certificate(
        self, fingerprint: str, passphrase: str, reason: Reason, words: str = ""
    ) -> bytes | None:
        if not self._file(fingerprint, "secret").exists():
            return None
        if self._file(fingerprint, "secret").read_text() != passphrase:
            raise MailboxError("Locked.", code="gnupg-failed", exit_code=Exit.KEYS)
        return f"revokes {fingerprint} {reason}".encode()

    def revoke(self, fingerprint: str, certificate: bytes) -> None:
        with self._world.change("own.revoke"):
            if not certificate.startswith(b"revokes " + fingerprint.encode()):
                raise MailboxError("Another's.", code="key-unusable", exit_code=Exit.KEYS)
            self._file(fingerprint, "revoked").write_bytes(certificate)

    def destroy_secret(self, fingerprint: str) -> None:
        with self._world.change("own.destroy_secret"):
            self._file(fingerprint, "secret").unlink(missing_ok=True)

    def sign(self, text: str, fingerprints: tuple[str, ...], passphrase: str) -> str:
        with self._world.change("own.sign"):
            for each in fingerprints:
                assert self._file(each, "secret").read_text() == passphrase
        return f"{text}\nsigned by {' '.join(fingerprints)}\n"

    def _described(self, fingerprint: str) -> Details:
        details = self.describe(fingerprint)
        assert details is not None
        return details

    def _file(self, fingerprint: str, kind: str) -> Path:
        return self._home / f"{fingerprint}.{kind}"


def _armored(armored: bytes, wanted: str) -> tuple[str, str]:
    kind, _, rest = armored.decode().partition(" ")
    if kind != wanted:
        raise MailboxError("No key.", code="key-unusable", exit_code=Exit.KEYS)
    fingerprint, _, address = rest.partition(" ")
    return fingerprint, address


def offer(fingerprint: str, address: str, *, found_for: str = "") -> Offer:
    """A key that can be accepted."""
    key = Key(fingerprint, (address,), (address,), "E", "u", None)
    return Offer(key, f"public {fingerprint} {address}", "a file", found_for)


def make_paths(root: Path) -> Paths:
    """The folders below one root."""
    return Paths(root / "config", root / "data", root / "state", root / "run")


def make_house(world: World) -> House:
    """A house of fakes; a new one on the same world is the next command."""
    paths = make_paths(world.root)
    return House(
        paths=paths,
        records=Records(paths, SHIPPED),
        vault=FakeVault(world),
        volumes=FakeVolumes(world),
        keyslots=FakeKeyslots(world),
        headers=FakeHeaders(world),
        remains=FakeRemains(world),
        machines=FakeMachines(world),
        wardens=FakeWardens(world),
        storage=FakeStorage(world),
        custodians=FakeCustodians(world),
        images=FakeImages(world),
        servers=FakeServers(world),
        host=FakeHost(world),
        user_keyring=FakeUserKeyring(world),
        certificates=FakeCertificates(world),
        key_reader=FakeKeyReader(),
        key_sources=FakeKeySources(world),
        profile_keyring=lambda name: FakeProfileKeyring(world, paths.gnupg(name)),
        own_keyring=lambda name: FakeOwnKeyring(world, paths.gnupg(name)),
        progress=world,
        beside=lambda work: work,  # done when it is waited for: always in the same order
    )


SETTINGS = Settings("thunderbird", Machine(2 * 1024**3, 2), 64 * 1024**2, Policy(), Display())
ACCOUNT = Account(
    address="anna@kunde.test",
    display_name="Anna",
    login="anna@kunde.test",
    imap=Endpoint("imap.kunde.test", 993),
    smtp=Endpoint("smtp.kunde.test", 465),
)


def make_wish(name: str = NAME, **changes: Any) -> Wish:
    """A wish whose every part is right."""
    values: dict[str, Any] = {
        "template": "default",
        "account": ACCOUNT,
        "settings": SETTINGS,
        "password": PASSWORD,
        "key": KeyChoice(fingerprint=OWN),
        "correspondents": (BERT,),
        "hand_over": CODES.append,
    }
    return Wish(name=name, **values | changes)
