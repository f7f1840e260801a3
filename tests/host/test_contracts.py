"""The real adapters keep the contracts that the fakes are held to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.session import Session
from sandbox import ports
from sandbox.host import volumes as luks
from sandbox.host.gnupg import ProfileKeyring, UserKeyring
from sandbox.host.libvirt import connection
from sandbox.host.libvirt.machines import LibvirtMachines
from sandbox.host.vault import Vault
from tests.contracts import ports as contracts
from tests.host.conftest import need, need_libvirt


class TestVault(contracts.VaultContract):
    @pytest.fixture
    def vault(self, in_session: Session) -> ports.Vault:
        return Vault()


class TestVolumes(contracts.VolumesContract):
    @pytest.fixture
    def volumes(self) -> ports.Volumes:
        need("qemu-img")
        return luks


class TestMachines(contracts.MachinesContract):
    @pytest.fixture
    def machines(self, in_session: Session) -> ports.Machines:
        need_libvirt()
        assert connection.facts(connection.SESSION).error is None
        return LibvirtMachines(connection.SESSION)


class TestUserKeyring(contracts.UserKeyringContract):
    @pytest.fixture
    def user_keyring(self, in_session: Session) -> ports.UserKeyring:
        return UserKeyring(in_session.env["GNUPGHOME"])


class TestProfileKeyring(contracts.ProfileKeyringContract):
    @pytest.fixture
    def ring(self) -> Iterator[ports.ProfileKeyring]:
        need("gpg", "gpgconf", "gpg-connect-agent")
        folder = Path(tempfile.mkdtemp(prefix="ring-"))
        made = ProfileKeyring(folder / "keys")
        yield made
        made.destroy()
        shutil.rmtree(folder)
