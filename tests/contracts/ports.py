"""Contracts of the ports that have fakes; a subclass gives the implementation as a fixture."""

from __future__ import annotations

import base64
import re
import uuid
from pathlib import Path

import pytest

from sandbox import ports
from sandbox.model.errors import MailboxError
from sandbox.model.machine import MachineState

NOBODY = "F" * 40
GIB = 1024**3


def never(_description: str) -> str:
    raise AssertionError("nobody should be asked")


class VaultContract:
    """Secrets in a keyring."""

    def test_a_secret_is_kept_replaced_and_forgotten(self, vault: ports.Vault) -> None:
        vault.check()
        profile, other = uuid.uuid4(), uuid.uuid4()
        assert vault.get(profile, "mail-password") is None
        for secret in ("first", "sécond with spaces"):
            vault.put(profile, "mail-password", secret)
            assert vault.get(profile, "mail-password") == secret
        assert vault.get(profile, "volume-key") is None
        assert vault.get(other, "mail-password") is None
        assert vault.delete(profile, "mail-password") is True
        assert vault.delete(profile, "mail-password") is False
        assert vault.get(profile, "mail-password") is None

    def test_a_new_key_is_one_line_of_256_random_bits(self, vault: ports.Vault) -> None:
        keys = {vault.new_key() for _ in range(5)}
        assert len(keys) == 5
        assert all(len(base64.b64decode(key)) == 32 and b"\n" not in key for key in keys)


class VolumesContract:
    """LUKS volumes."""

    KEY = b"a key that is not random"

    def test_a_volume_is_made_once(self, volumes: ports.Volumes, tmp_path: Path) -> None:
        path = tmp_path / "folder" / "a.luks"
        assert volumes.look(path) is None
        volumes.create(path, GIB // 16, self.KEY)
        facts = volumes.look(path)
        assert facts is not None and facts.luks and path.stat().st_mode & 0o077 == 0
        volumes.check(path)
        before = path.read_bytes()[:4096]
        with pytest.raises(MailboxError) as refused:
            volumes.create(path, GIB // 16, self.KEY)
        assert refused.value.code == "volume-exists"
        assert path.read_bytes()[:4096] == before

    def test_one_that_is_missing_is_refused(self, volumes: ports.Volumes, tmp_path: Path) -> None:
        with pytest.raises(MailboxError) as refused:
            volumes.check(tmp_path / "a.luks")
        assert refused.value.code == "volume-missing"

    def test_an_erased_one_is_no_volume(self, volumes: ports.Volumes, tmp_path: Path) -> None:
        path = tmp_path / "a.luks"
        assert not volumes.erase_header(path)
        volumes.create(path, GIB // 16, self.KEY)
        assert volumes.erase_header(path)
        with pytest.raises(MailboxError) as refused:
            volumes.check(path)
        assert refused.value.code == "volume-header-damaged"

    def test_it_is_removed_and_stays_so(self, volumes: ports.Volumes, tmp_path: Path) -> None:
        path = tmp_path / "a.luks"
        volumes.create(path, GIB // 16, self.KEY)
        for _ in range(2):
            volumes.remove(path)
            assert list(tmp_path.iterdir()) == []


class MachinesContract:
    """A machine that is not there; one that runs is in tests/host/test_libvirt.py."""

    NAME = "mailbox-nobody+contract"

    def test_it_is_closed_and_stays_so(self, machines: ports.Machines) -> None:
        machines.destroy(self.NAME)
        assert machines.state(self.NAME) is MachineState.CLOSED
        assert self.NAME not in machines.states()
        assert machines.wait_gone(self.NAME, 1)
        assert not machines.has_volume(self.NAME)

    def test_it_takes_no_volume(self, machines: ports.Machines, tmp_path: Path) -> None:
        with pytest.raises(MailboxError) as refused:
            machines.attach_volume(self.NAME, tmp_path / "volume.sock")
        assert refused.value.code == "machine-gone"

    def test_it_has_no_display(self, machines: ports.Machines) -> None:
        with pytest.raises(MailboxError) as refused:
            machines.screenshot(self.NAME)
        assert refused.value.code == "machine-closed"


class UserKeyringContract:
    """The user's GnuPG without the key that is asked for."""

    def test_a_key_that_is_not_there(self, user_keyring: ports.UserKeyring) -> None:
        with pytest.raises(MailboxError) as refused:
            user_keyring.public(NOBODY)
        assert refused.value.code == "key-not-found"
        with pytest.raises(MailboxError) as refused:
            user_keyring.publics([NOBODY])
        assert refused.value.code == "key-not-found"
        with pytest.raises(MailboxError) as refused:
            user_keyring.secret(NOBODY, never)
        assert refused.value.code == "key-not-found"
        assert user_keyring.describe(NOBODY) is None and not user_keyring.has_secret(NOBODY)


class ProfileKeyringContract:
    """The key ring of a profile."""

    PASSPHRASE = "cGFzc3BocmFzZQ=="

    def test_a_made_key_opens_with_its_passphrase_alone(self, ring: ports.ProfileKeyring) -> None:
        ring.create()
        fingerprint = ring.generate("Anna", "anna@kunde.test", self.PASSPHRASE)
        assert re.fullmatch(r"[0-9A-F]{40}", fingerprint)
        keys = ring.export(fingerprint, self.PASSPHRASE)
        assert keys.fingerprint == fingerprint and keys.secret and keys.public
        with pytest.raises(MailboxError) as refused:
            ring.export(fingerprint, "wrong")
        assert refused.value.code == "key-locked"

    def test_a_published_key_has_the_address_asked_for(self, ring: ports.ProfileKeyring) -> None:
        ring.create()
        fingerprint = ring.generate("Anna", "anna@kunde.test", self.PASSPHRASE)
        assert ring.published(fingerprint, "anna@kunde.test")
        with pytest.raises(MailboxError) as refused:
            ring.published(fingerprint, "bert@kunde.test")
        assert refused.value.code == "key-unusable"

    def test_what_is_no_key_is_refused(self, ring: ports.ProfileKeyring) -> None:
        ring.create()
        with pytest.raises(MailboxError) as refused:
            ring.add_correspondents(["junk"])
        assert refused.value.code == "key-unusable"
        with pytest.raises(MailboxError) as refused:
            ring.add_own(b"junk", "", self.PASSPHRASE, never)
        assert refused.value.code == "key-unusable"

    def test_it_is_destroyed_and_stays_so(self, ring: ports.ProfileKeyring) -> None:
        ring.create()
        ring.destroy()
        ring.destroy()
