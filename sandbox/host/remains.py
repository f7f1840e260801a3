"""The `Remains` port on this computer: the end of volumes, what is left elsewhere, and copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.host import medium, volume_end
from sandbox.host.leftovers import Leftovers, base_folders
from sandbox.host.probes.system import System
from sandbox.model.inventory import Copy
from sandbox.model.remains import Searched, Sought


class Remains:
    """What is left of mailboxes here; `uri` is libvirt's."""

    def __init__(self, uri: str) -> None:
        self._leftovers = Leftovers(uri, base_folders())
        self._system = System()

    def describe(self, volume: Path) -> Mapping[str, Any]:
        """What the volume's header says."""
        return volume_end.describe(volume)

    def opens(self, volume: Path, key: bytes) -> bool | None:
        """Whether the key opens the volume; None when it cannot be tried."""
        return volume_end.opens(volume, key)

    def discard(self, volume: Path) -> bool | None:
        """Give the blocks of a volume back; None without a volume."""
        return volume_end.discard(volume)

    def clear(self, domain: str, identity: str, pictures: Mapping[Path, str]) -> dict[str, int]:
        """Remove what libvirt and the viewer noted, and pictures as they were made."""
        return self._leftovers.clear(domain, identity, pictures)

    def medium(self, volume: Path) -> Mapping[str, Any]:
        """What the volume rests on, and `swap`."""
        return medium.medium(self._system, volume) | {"swap": medium.swap(self._system)}

    def copies(self, volume: Path) -> Sequence[Copy]:
        """Copies that others may have made."""
        return medium.copies(self._system, volume)

    def places(self) -> tuple[Path, ...]:
        """Folders of libvirt and the viewer."""
        return self._leftovers.places()

    def search(self, sought: Sought) -> Searched:
        """Every file that names the customer."""
        return self._leftovers.search(sought)
