"""The composition root: which adapters a run of `mailbox` works with.

Adapters are imported when first used: `mailbox list` must not wait for GnuPG or asyncssh.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sandbox.lifecycle.engine import Progress
from sandbox.lifecycle.house import House
from sandbox.state.paths import Paths, find_paths
from sandbox.state.records import Records


class Lazy:
    """Stands for an adapter until something is asked of it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = self._make()
        return getattr(self._made, name)


def libvirt_uri() -> str:
    """The libvirt URI of this run."""
    from sandbox.host.libvirt.connection import choose_uri

    return choose_uri(os.environ, os.geteuid())


def compose(progress: Progress) -> House:
    """The house of this user on this computer."""
    from sandbox.host.data import data_root

    paths = find_paths(os.environ)
    return House(
        paths=paths,
        records=Records(paths, data_root() / "profiles"),
        vault=Lazy(lambda: _vault(paths)),
        volumes=Lazy(_volumes),
        keyslots=Lazy(_keyslots),
        headers=Lazy(_headers),
        remains=Lazy(_remains),
        machines=Lazy(_machines),
        wardens=Lazy(_wardens),
        storage=Lazy(_storage),
        custodians=Lazy(_custodians),
        images=Lazy(lambda: image_store(paths)),
        servers=Lazy(_servers),
        host=Lazy(lambda: _ThisComputer(paths)),
        user_keyring=Lazy(_user_keyring),
        certificates=Lazy(_certificates),
        key_reader=Lazy(lambda: _key_reader(paths)),
        key_sources=Lazy(_key_sources),
        profile_keyring=lambda name: _profile_keyring(paths.gnupg(name)),
        own_keyring=lambda name: _own_keyring(paths.gnupg(name)),
        progress=progress,
    )


def image_store(paths: Paths) -> Any:
    """The images of this user."""
    from sandbox.host.images import ImageStore

    return ImageStore(paths.images)


def _own_keyring(home: Path) -> Any:
    from sandbox.host.own_keys import OwnKeyring

    return OwnKeyring(home)


def _vault(paths: Paths) -> Any:
    from sandbox.host.vault import Vault

    return Vault(paths.keyring_lock)


def _volumes() -> Any:
    from sandbox.host import volumes

    return volumes


def _keyslots() -> Any:
    from sandbox.host import keyslots

    return keyslots


def _remains() -> Any:
    from sandbox.host.remains import Remains

    return Remains(libvirt_uri())


def _headers() -> Any:
    from sandbox.host import header_backup

    return header_backup


def _machines() -> Any:
    from sandbox.host.libvirt.machines import LibvirtMachines

    return LibvirtMachines(libvirt_uri())


def _wardens() -> Any:
    from sandbox.host.wardens import WardenProcesses

    return WardenProcesses()


def _storage() -> Any:
    from sandbox.host import storage

    return storage


def _custodians() -> Any:
    from sandbox.host.custody.client import Custodians

    return Custodians()


def _servers() -> Any:
    from sandbox.host import davcheck, mailcheck

    return SimpleNamespace(check=mailcheck.check, collections=davcheck.collections)


def _user_keyring() -> Any:
    from sandbox.host.gnupg import UserKeyring

    return UserKeyring(os.environ.get("GNUPGHOME"))


def _certificates() -> Any:
    from sandbox.host import pkcs12

    return pkcs12


def _key_reader(paths: Paths) -> Any:
    from sandbox.host.keyreader import KeyReader

    return KeyReader(paths.runtime)


def _key_sources() -> Any:
    from sandbox.host import keysources

    return keysources


def _profile_keyring(home: Path) -> Any:
    from sandbox.host.gnupg import ProfileKeyring

    return ProfileKeyring(home)


class _ThisComputer:
    """The Host port of this computer."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def hardware(self) -> bool:
        from sandbox.cli.diagnose import prove_kvm

        return prove_kvm(self._paths).works

    def time_zone(self) -> str:
        from sandbox.host import desktop

        return desktop.time_zone()

    def keyboard(self) -> str:
        from sandbox.host import desktop

        return desktop.keyboard()

    def show(self, domain: str, title: str) -> bool:
        from sandbox.host import desktop

        return desktop.show(libvirt_uri(), domain)

    def warm_later(self, client: str) -> None:
        from sandbox.cli import background

        background.start(client)

    def guard_sleep(self) -> None:
        from sandbox.cli import sleeper

        sleeper.start(self._paths)
