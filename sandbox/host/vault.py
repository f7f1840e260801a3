"""The OS keyring: the only place where a profile's secrets rest on this computer.

One line of text an item: gnome-keyring has lost whole collections to multi-line secrets.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import sys
import types
import uuid
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
from keyring.errors import InitError, KeyringError, KeyringLocked, PasswordDeleteError

from sandbox.host.probes.facts import KeyringFacts
from sandbox.model.errors import Exit, MailboxError
from sandbox.state import lock

SERVICE = "mailbox"
if sys.platform != "darwin":
    # keyring loads every backend before it chooses; this one looks for Apple's libraries with
    # ctypes.util.find_library, which starts ldconfig, gcc and ld, and can never be chosen here.
    _macos = "keyring.backends.macOS"
    sys.modules.setdefault(_macos, types.ModuleType(_macos))
# Backends that keep secrets readable on the disk, or nowhere.
_UNSAFE = ("keyring.backends.null", "keyring.backends.fail", "keyrings.alt.file.Plaintext")
_UNSAFE_MODULES = ("keyrings.alt.Gnome", "keyrings.alt.Google", "keyrings.alt.multi")


def backend_name(backend: keyring.backend.KeyringBackend) -> str:
    """The full class name of the backend that would really store (a chainer uses its first)."""
    inner = list(getattr(backend, "backends", ()))
    chosen = inner[0] if inner else backend
    return f"{type(chosen).__module__}.{type(chosen).__name__}"


def is_safe(name: str) -> bool:
    """Whether a backend of this name encrypts what it stores."""
    return not name.startswith(_UNSAFE + _UNSAFE_MODULES)


def facts() -> KeyringFacts:
    """What the keyring is like now; never raises."""
    try:
        name = backend_name(keyring.get_keyring())
    except Exception as error:
        return KeyringFacts("unknown", safe=True, error=f"{type(error).__name__}: {error}")
    if not is_safe(name):
        return KeyringFacts(name, safe=False)
    try:
        keyring.get_password(SERVICE, "doctor")
    except (KeyringLocked, InitError) as error:
        return KeyringFacts(name, safe=True, locked=True, error=str(error))
    except Exception as error:
        return KeyringFacts(name, safe=True, error=f"{type(error).__name__}: {error}")
    return KeyringFacts(name, safe=True)


class Vault:
    """Secrets of profiles in the keyring, by profile id and kind of item.

    Commands take turns at the lock `turns`: gnome-keyring finds an item and has lost it a moment
    later, or refuses everything, while several processes write.
    """

    def __init__(self, turns: Path | None = None) -> None:
        self._turns = turns

    @staticmethod
    def new_key() -> bytes:
        """256 random bits as one line of base64: a volume key, or an OpenPGP passphrase."""
        return base64.b64encode(secrets.token_bytes(32))

    def check(self) -> None:
        """Refuse a keyring that is none.

        Raises:
            MailboxError: `keyring-missing` or `keyring-unsafe`.
        """
        with _Explained():  # a backend that is configured but cannot be loaded
            name = backend_name(keyring.get_keyring())
        if is_safe(name):
            return
        missing = ".fail." in name
        raise MailboxError(
            "No keyring is running on this computer; no secret was stored."
            if missing
            else f"The keyring backend {name} does not encrypt its secrets; none was stored.",
            resolution="Start a Secret Service (gnome-keyring, KWallet); without a desktop: "
            "dbus-run-session -- sh -c 'gnome-keyring-daemon --unlock; mailbox ...'",
            code="keyring-missing" if missing else "keyring-unsafe",
            exit_code=Exit.KEYRING,
        )

    def put(self, profile: uuid.UUID, kind: str, secret: str) -> None:
        """Store a secret and read it back."""
        self.check()
        with self._turn():
            keyring.set_password(SERVICE, _item(profile, kind), secret)
            kept = keyring.get_password(SERVICE, _item(profile, kind))
        if kept != secret:
            raise _broken("did not keep what it was given")

    def get(self, profile: uuid.UUID, kind: str) -> str | None:
        """The secret, or None when there is none."""
        self.check()
        with self._turn():
            return keyring.get_password(SERVICE, _item(profile, kind))

    def delete(self, profile: uuid.UUID, kind: str) -> bool:
        """Delete a secret and look that it is gone; returns whether there was one."""
        self.check()
        with self._turn():
            if keyring.get_password(SERVICE, _item(profile, kind)) is None:
                return False
            try:
                keyring.delete_password(SERVICE, _item(profile, kind))
            except PasswordDeleteError as error:
                raise _broken(str(error)) from None
            if keyring.get_password(SERVICE, _item(profile, kind)) is not None:
                raise _broken("still holds a secret that was deleted")
            return True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with lock.take_turn(self._turns) if self._turns else contextlib.nullcontext(), _Explained():
            yield


def _item(profile: uuid.UUID, kind: str) -> str:
    return f"{profile}/{kind}"


def _broken(text: str) -> MailboxError:
    return MailboxError(
        f"The keyring failed: {text}.",
        resolution="Unlock it (log in, or open your keyring application), then try again.",
        code="keyring-failed",
        exit_code=Exit.KEYRING,
    )


class _Explained:
    """Turns what a keyring backend raises into a sentence; its text never holds the secret."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, KeyringLocked | InitError):
            raise MailboxError(
                "The keyring is locked; nothing was changed.",
                resolution="Unlock it (log in, or open your keyring application), then try again.",
                code="keyring-locked",
                exit_code=Exit.KEYRING,
            ) from None
        if isinstance(error, KeyringError):
            raise _broken(type(error).__name__) from None
        if (
            error is not None
            and not isinstance(error, MailboxError)
            and isinstance(error, Exception)
        ):
            raise _broken(type(error).__name__) from None
