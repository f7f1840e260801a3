"""Machines that begin where their image's boot would end, and the making of that state."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, StoppedError, run
from sandbox.lifecycle.house import House
from sandbox.lifecycle.images import alone, journal
from sandbox.lifecycle.machine import CHANNEL_DEADLINE_S
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image, MachineSpec, Shape
from sandbox.model.warm import WarmFailure, misfit
from sandbox.state import files, lock

_NOBODY = uuid.UUID(int=0)
# The guest's channel waits for the next host again when the last one has hung up.
_SETTLE_S = 2.0
# Beside the sockets of the machine that is saved: what it is called, should this be killed.
_DOMAIN = "domain"
_BOOT = Step("boot", "Starting a machine of the image", "one without volume, name and servers")
_FILL = Step("fill", "Reading the mail client's files", "so that they are in its memory")
_SAVE = Step("save", "Saving it as it waits for a customer", "the next open begins there")
# Until the screen is there; then what the client is made of into the page cache. At the end
# nothing of this connection stays: every connection has keys of its own.
_WARM = """
n=0; until [ -S /tmp/.X11-unix/X0 ] || [ $n -gt 600 ]; do n=$((n+1)); sleep 0.2; done
[ -S /tmp/.X11-unix/X0 ] || exit 1
sleep 2
find "/usr/lib/$1"* "/usr/libexec/$1"* "/usr/lib/x86_64-linux-gnu/$1"* /var/cache/mailbox-client \\
    -type f -exec cat {} + >/dev/null 2>&1
cd /usr/lib/x86_64-linux-gnu
for name in c m stdc++ gcc_s gtk-3 gdk-3 X pango cairo glib gio gobject gdk_pixbuf atk dbus \\
    fontconfig freetype harfbuzz fribidi pixman png z expat xcb epoxy nss nspr \\
    camel edataserver ebook ecal webkit2gtk javascriptcoregtk soup; do
    cat "lib$name"*.so.* >/dev/null 2>&1
done
rm -rf /run/mailbox/channel
sync
"""


def warm_fits(house: House, spec: MachineSpec, image: Image) -> Mapping[str, str]:
    """What a saved machine and one that begins from it must have in common."""
    return {
        "image": image.id,
        "memory": str(spec.memory),
        "cpus": str(spec.cpus),
        "acceleration": "KVM" if spec.hardware else "emulation",
        **house.machines.traits(_without_names(spec)),
    }


def _without_names(spec: MachineSpec) -> MachineSpec:
    nowhere = Path("/")
    return replace(
        spec,
        name="warm",
        uuid=_NOBODY,
        title="warm",
        memory=1,
        cpus=1,
        kernel=nowhere,
        initrd=nowhere,
        root_image=nowhere,
        channel_socket=nowhere,
        display_socket=nowhere,
        console_log=nowhere,
    )


def start_machine(house: House, spec: MachineSpec, image: Image) -> str | None:
    """Start a machine, from the warm state where there is one; else the reason why it boots.

    Whatever is wrong with the warm state, the machine starts.
    """
    note = house.images.warm_note(image, spec.shape)
    reason = misfit(note, warm_fits(house, spec, image))
    if note is not None and reason is None:
        try:
            house.machines.start_warm(spec, image.warm(spec.shape), note.sha256)
        except MailboxError as error:
            reason = f"{error.brief} {error.details}".strip()
            house.machines.destroy(spec.name)
        else:
            return None
    house.machines.start(spec)
    return reason


def shape_misfit(house: House, image: Image, shape: Shape) -> str | None:
    """Why machines of this shape boot, as the end of a sentence; None when they need not."""
    fits = warm_fits(house, _spec(house, image, shape), image)
    return misfit(house.images.warm_note(image, shape), fits)


def has_failed(house: House, image: Image, shape: Shape) -> bool:
    """Whether making it failed already, with all as it is now."""
    failure = house.images.warm_failure(image, shape)
    return failure is not None and failure.fits == warm_fits(
        house, _spec(house, image, shape), image
    )


def warm_up(house: House, image: Image, shape: Shape, *, gently: bool = False) -> None:
    """Save a machine of this image and shape that waits for a customer; it replaces an older one.

    Raises:
        MailboxError: of libvirt or the machine; it is noted, and the image is as usable as before.
    """
    spec = _spec(house, image, shape)
    fits = warm_fits(house, spec, image)
    try:
        _save(house, spec, image, fits, gently=gently)
    except StoppedError:
        raise
    except MailboxError as error:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        failure = WarmFailure(now, f"{error.brief} {error.details}".strip(), fits)
        house.images.note_failure(image, shape, failure)
        raise


def plan_warm(image: Image, shape: Shape) -> Plan:
    """The steps to a saved machine of the image."""
    size = {"memory": shape.memory, "cpus": shape.cpus}
    boot = replace(_BOOT, title=f"{_BOOT.title}, with {shape}")
    return Plan("image warm", image.folder.name, (boot, _FILL, _SAVE), size)


def _save(
    house: House, spec: MachineSpec, image: Image, fits: Mapping[str, str], *, gently: bool
) -> None:
    with (
        alone(house, f"mailbox image warm {image.client}"),
        house.images.new_warm_state(image, spec.shape, fits) as target,
    ):
        work = _Warming(house, spec, image, target, gently=gently)
        plan = plan_warm(image, spec.shape)
        try:
            run(plan, work.effects(), journal(house), house.progress, undo=work.end)
        finally:
            work.end()


class _Warming:
    """The effects of saving one machine."""

    def __init__(
        self, house: House, spec: MachineSpec, image: Image, target: Path, *, gently: bool
    ) -> None:
        self._house = house
        self._spec = spec
        self._image = image
        self._target = target
        self._gently = gently
        self._folder = spec.channel_socket.parent

    def effects(self) -> dict[str, Any]:
        return {
            "boot": self._boot,
            "fill": lambda: _prepare(self._house, self._spec, self._image),
            "save": lambda: self._house.machines.save_empty(self._spec.name, self._target),
        }

    def _boot(self) -> None:
        house, spec, folder = self._house, self._spec, self._folder
        # What a killed one left.
        house.machines.destroy(spec.name)
        house.wardens.kill(folder / "warden.sock")
        files.private_folder(folder)
        files.replace(folder / _DOMAIN, spec.name.encode())
        house.machines.start(spec)
        if self._gently:
            house.machines.slow_down(spec.name)

    def end(self) -> None:
        with suppress(MailboxError):
            self._house.machines.destroy(self._spec.name)
        _clear(self._folder)


def killed(house: House) -> list[str]:
    """The machines that killed runs of `warm_up` left; none while one of them runs."""
    return [] if lock.is_held(_turns(house)) else [domain for _, domain in _left(house)]


def end_killed(house: House) -> list[str]:
    """End the machines that killed runs of `warm_up` left; returns what they were called."""
    if not killed(house):
        return []
    with lock.take_turn(_turns(house)):
        left = _left(house)
        for folder, domain in left:
            house.wardens.kill(folder / "warden.sock")
            house.machines.destroy(domain)
            _clear(folder)
    return [domain for _, domain in left]


def _turns(house: House) -> Path:
    # The lock that `Images.alone` holds.
    return house.paths.images / ".lock"


def _left(house: House) -> list[tuple[Path, str]]:
    notes = sorted(house.paths.runtime.glob(f".*/{_DOMAIN}"))
    return [(note.parent, note.read_text()) for note in notes]


def _spec(house: House, image: Image, shape: Shape) -> MachineSpec:
    # No profile's name begins with a dot, and no machine of one is named like this.
    folder = house.paths.runtime / f".{image.id[:8]}"
    return MachineSpec(
        name=f"warm-{image.client}-{image.id}-{house.paths.home_tag}",
        uuid=uuid.uuid4(),
        title="warm",
        memory=shape.memory,
        cpus=shape.cpus,
        kernel=image.kernel,
        initrd=image.initrd,
        root_image=image.root,
        channel_socket=folder / "channel.sock",
        display_socket=folder / "display.sock",
        console_log=folder / "console.log",
        hardware=house.host.hardware(),
    )


def _prepare(house: House, spec: MachineSpec, image: Image) -> None:
    """To where only a customer is missing, over a channel that reaches no server."""
    folder = spec.channel_socket.parent
    control = folder / "warden.sock"
    house.wardens.start(
        {
            "profile_id": str(_NOBODY),
            "name": spec.name,
            "channel_socket": str(spec.channel_socket),
            "control_socket": str(control),
            "log_file": str(folder / "warden.log"),
            "hostname": "mailbox",
            "connect_deadline_s": CHANNEL_DEADLINE_S,
            "forwards": [],
            "agent": None,
            "up": False,
        }
    )
    warden, said = house.wardens.find(control), io.BytesIO()
    try:
        warden.wait_ready(CHANNEL_DEADLINE_S)
        argv = ("sh", "-c", _WARM, "sh", image.client)
        code = warden.run(argv, user="root", stdout=said, stderr=said)
    finally:
        warden.stop()
    if code:
        raise MailboxError(
            "The machine did not come to where it waits for a customer.",
            details=said.getvalue()[-500:].decode(errors="replace"),
            code="not-warm",
            exit_code=Exit.MACHINE,
        )
    time.sleep(_SETTLE_S)


def _clear(folder: Path) -> None:
    for left in folder.glob("*"):
        left.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        folder.rmdir()
