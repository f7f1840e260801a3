"""The fakes keep the contracts of what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import ports
from tests.contracts import ports as contracts
from tests.unit import fakes
from tests.unit.fakes import World


class TestFakeVault(contracts.VaultContract):
    @pytest.fixture
    def vault(self, world: World) -> ports.Vault:
        return fakes.FakeVault(world)


class TestFakeVolumes(contracts.VolumesContract):
    @pytest.fixture
    def volumes(self, tmp_path: Path) -> ports.Volumes:
        away = tmp_path.parent / f"{tmp_path.name}-world"
        away.mkdir()
        return fakes.FakeVolumes(World(away))


class TestFakeMachines(contracts.MachinesContract):
    @pytest.fixture
    def machines(self, world: World) -> ports.Machines:
        return fakes.FakeMachines(world)


class TestFakeUserKeyring(contracts.UserKeyringContract):
    @pytest.fixture
    def user_keyring(self, world: World) -> ports.UserKeyring:
        return fakes.FakeUserKeyring(world)


class TestFakeProfileKeyring(contracts.ProfileKeyringContract):
    @pytest.fixture
    def ring(self, world: World, tmp_path: Path) -> ports.ProfileKeyring:
        return fakes.FakeProfileKeyring(world, tmp_path / "ring")
