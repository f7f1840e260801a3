"""The vault on a real gnome-keyring, and keyrings that are none."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backends import SecretService

from demo.session import Session, find_bytes
from sandbox.host import vault
from sandbox.host.vault import Vault
from sandbox.model.errors import Exit

WHO = uuid.UUID(int=1)
CANARY = "canary-5f1d0c3e"


@pytest.fixture
def real(in_session: Session) -> Iterator[Session]:
    before = keyring.get_keyring()
    keyring.set_keyring(SecretService.Keyring())
    yield in_session
    keyring.set_keyring(before)


def test_secrets_are_kept_found_and_forgotten(real: Session) -> None:
    assert vault.facts().safe and vault.facts().error is None
    Vault().check()
    for kind in ("volume-key", "mail-password"):
        Vault().put(WHO, kind, f"{CANARY}-{kind}")
    assert Vault().get(WHO, "volume-key") == f"{CANARY}-volume-key"
    Vault().put(WHO, "volume-key", "new")
    assert Vault().get(WHO, "volume-key") == "new"
    assert Vault().get(uuid.UUID(int=2), "volume-key") is None
    assert Vault().delete(WHO, "volume-key") is True
    assert Vault().delete(WHO, "volume-key") is False
    assert Vault().get(WHO, "volume-key") is None
    assert Vault().get(WHO, "mail-password") == f"{CANARY}-mail-password"


@pytest.mark.parametrize("secret", ["ä €", "a'b\"c\\d $x", "x" * 4096, " "])
def test_a_password_comes_back_as_it_was(real: Session, secret: str) -> None:
    Vault().put(WHO, "mail-password", secret)
    assert Vault().get(WHO, "mail-password") == secret


def test_the_keyrings_own_file_is_encrypted(real: Session) -> None:
    Vault().put(WHO, "mail-password", CANARY)
    assert list(real.root.rglob("*.keyring"))
    assert find_bytes(real.folders, [CANARY.encode()]) == []


# As the one of keyrings.alt: it would keep everything in a file.
PLAINTEXT = """
import pathlib
import keyring.backend

class PlaintextKeyring(keyring.backend.KeyringBackend):
    priority = 1
    kept = pathlib.Path(__file__).with_name("kept")

    def set_password(self, service, username, password):
        self.kept.write_text(password)

    def get_password(self, service, username):
        return self.kept.read_text() if self.kept.exists() else None

    def delete_password(self, service, username):
        self.kept.unlink()
"""
ONBOARD = (
    *("onboard", "a", "--offline", "--password-stdin", "--json", "--address", "a@kunde.test"),
    *("--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test", "--no-recovery-code"),
)


@pytest.mark.parametrize(
    ("backend", "code"),
    [
        ("keyring.backends.null.Keyring", "keyring-unsafe"),
        ("keyrings.alt.file.PlaintextKeyring", "keyring-unsafe"),
        ("keyring.backends.fail.Keyring", "keyring-missing"),
        ("nonsense.Keyring", "keyring-failed"),
    ],
)
def test_a_keyring_that_is_none_gets_no_secret(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str, code: str
) -> None:
    (tmp_path / "keyrings/alt").mkdir(parents=True)
    (tmp_path / "keyrings/alt/file.py").write_text(PLAINTEXT)
    monkeypatch.setitem(session.env, "PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(session.env, "PYTHON_KEYRING_BACKEND", backend)
    done = session.mailbox(*ONBOARD, input=CANARY.encode(), check=False)
    assert done.returncode == Exit.KEYRING, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["code"] == code and error["resolution"]
    assert "Traceback" not in done.stderr
    assert find_bytes([*session.folders, tmp_path], [CANARY.encode(), b"kunde"]) == []


def test_without_a_session_bus_there_is_no_keyring(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.env, "DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    done = session.mailbox(*ONBOARD, input=CANARY.encode(), check=False)
    assert done.returncode == Exit.KEYRING, done.stderr
    assert "dbus-run-session" in done.text and "Traceback" not in done.stderr


def test_a_locked_keyring_is_a_sentence(real: Session) -> None:
    """Last: without a prompter on the bus, what was locked stays locked."""
    import secretstorage

    connection = secretstorage.dbus_init()
    Vault().put(WHO, "mail-password", CANARY)
    secretstorage.get_default_collection(connection).lock()
    done = real.mailbox(*ONBOARD, input=CANARY.encode(), check=False)
    assert done.returncode == Exit.KEYRING, done.stderr
    assert json.loads(done.stdout)["error"]["code"] in ("keyring-locked", "keyring-failed")
    assert "Traceback" not in done.stderr
    assert find_bytes(real.folders, [CANARY.encode()]) == []
