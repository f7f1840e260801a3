"""The vault on keyrings that keep, lose, lock, and are none."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import pytest
from keyring.backends import chainer, fail, null
from keyring.errors import InitError, KeyringError, KeyringLocked, PasswordDeleteError

from sandbox.host import vault
from sandbox.host.vault import Vault, backend_name, is_safe
from sandbox.model.errors import Exit, MailboxError
from sandbox.state import lock

WHO = uuid.UUID(int=1)


class Keeping(keyring.backend.KeyringBackend):
    """A keyring in memory, and the ways it may fail."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.error: Exception | None = None
        self.forgetful = self.sticky = False

    def _fail(self) -> None:
        if self.error:
            raise self.error

    def set_password(self, service: str, username: str, password: str) -> None:
        self._fail()
        if not self.forgetful:
            self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        self._fail()
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        self._fail()
        if not self.sticky:
            del self.kept[service, username]


@pytest.fixture
def ring() -> Iterator[Keeping]:
    before = keyring.get_keyring()
    made = Keeping()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_what_is_put_is_found_by_profile_and_kind(ring: Keeping) -> None:
    Vault().put(WHO, "volume-key", "one")
    Vault().put(WHO, "mail-password", "two")
    assert Vault().get(WHO, "volume-key") == "one"
    assert Vault().get(uuid.UUID(int=2), "volume-key") is None
    assert set(ring.kept) == {("mailbox", f"{WHO}/volume-key"), ("mailbox", f"{WHO}/mail-password")}


def test_deleting_says_whether_there_was_one(ring: Keeping) -> None:
    Vault().put(WHO, "volume-key", "one")
    assert Vault().delete(WHO, "volume-key") is True
    assert Vault().delete(WHO, "volume-key") is False
    assert ring.kept == {}


def test_keys_are_one_line_of_256_random_bits() -> None:
    keys = {Vault.new_key() for _ in range(20)}
    assert len(keys) == 20
    for key in keys:
        assert len(base64.b64decode(key, validate=True)) == 32
        assert b"\n" not in key


def test_a_keyring_that_forgets_is_found_out(ring: Keeping) -> None:
    ring.forgetful = True
    with pytest.raises(MailboxError, match="did not keep"):
        Vault().put(WHO, "volume-key", "one")


def test_a_keyring_that_does_not_delete_is_found_out(ring: Keeping) -> None:
    Vault().put(WHO, "volume-key", "one")
    ring.sticky = True
    with pytest.raises(MailboxError, match="still holds"):
        Vault().delete(WHO, "volume-key")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyringLocked("x"), "keyring-locked"),
        (InitError("x"), "keyring-locked"),
        (KeyringError("x"), "keyring-failed"),
        (PasswordDeleteError("x"), "keyring-failed"),
        (RuntimeError("the-secret"), "keyring-failed"),
        (UnicodeEncodeError("utf-8", "the-secret", 0, 1, "x"), "keyring-failed"),
    ],
)
def test_a_failing_keyring_is_a_sentence_without_the_secret(
    ring: Keeping, error: Exception, code: str
) -> None:
    ring.error = error
    for action in (
        lambda: Vault().put(WHO, "volume-key", "the-secret"),
        lambda: Vault().get(WHO, "volume-key"),
        lambda: Vault().delete(WHO, "volume-key"),
    ):
        with pytest.raises(MailboxError) as refused:
            action()
        assert refused.value.code == code and refused.value.exit_code == Exit.KEYRING
        shown = f"{refused.value.brief}{refused.value.details}{refused.value.resolution}"
        assert "the-secret" not in shown
        assert refused.value.__cause__ is None and refused.value.__suppress_context__


def test_the_users_own_stop_passes_through(ring: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ring, "get_password", stopped)
    with pytest.raises(KeyboardInterrupt):
        Vault().get(WHO, "volume-key")


@pytest.mark.parametrize(
    ("backend", "code"),
    [(null.Keyring(), "keyring-unsafe"), (fail.Keyring(), "keyring-missing")],
)
def test_a_keyring_that_is_none_gets_no_secret(
    ring: Keeping, backend: keyring.backend.KeyringBackend, code: str
) -> None:
    keyring.set_keyring(backend)
    for action in (
        Vault().check,
        lambda: Vault().put(WHO, "volume-key", "one"),
        lambda: Vault().get(WHO, "volume-key"),
    ):
        with pytest.raises(MailboxError) as refused:
            action()
        assert refused.value.code == code and refused.value.resolution
    assert not vault.facts().safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("keyring.backends.SecretService.Keyring", True),
        ("keyring.backends.kwallet.DBusKeyring", True),
        ("keyring.backends.macOS.Keyring", True),
        ("keyrings.alt.file.EncryptedKeyring", True),
        ("keyrings.alt.file.PlaintextKeyring", False),
        ("keyrings.alt.Gnome.Keyring", False),
        ("keyrings.alt.Google.DocsKeyring", False),
        ("keyring.backends.null.Keyring", False),
        ("keyring.backends.fail.Keyring", False),
    ],
)
def test_backends_that_store_in_the_clear_are_known(name: str, safe: bool) -> None:
    assert is_safe(name) == safe


def test_a_chain_is_judged_by_the_one_that_would_store(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = chainer.ChainerBackend.__new__(chainer.ChainerBackend)
    monkeypatch.setattr(chainer.ChainerBackend, "backends", [null.Keyring(), Keeping()])
    assert backend_name(chain) == "keyring.backends.null.Keyring"


def test_a_locked_keyring_is_a_fact_and_no_error(ring: Keeping) -> None:
    assert vault.facts() == vault.KeyringFacts(backend_name(ring), safe=True)
    ring.error = KeyringLocked("locked")
    assert vault.facts().locked
    ring.error = RuntimeError("broken")
    found = vault.facts()
    assert not found.locked and "broken" in (found.error or "")


def test_a_backend_that_cannot_be_loaded_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'nonsense'")

    monkeypatch.setattr(keyring, "get_keyring", missing)
    with pytest.raises(MailboxError) as refused:
        Vault().check()
    assert refused.value.code == "keyring-failed"
    assert "nonsense" in (vault.facts().error or "")


def test_commands_take_turns_at_the_keyring(
    ring: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, held = tmp_path / "locks" / ".keyring", list[bool]()
    monkeypatch.setattr(ring, "_fail", lambda: held.append(lock.is_held(turns)))
    kept = Vault(turns)
    kept.put(WHO, "volume-key", "one")
    kept.get(WHO, "volume-key")
    kept.delete(WHO, "volume-key")
    assert len(held) == 6 and all(held)
    assert not lock.is_held(turns)
