"""GnuPG: the user's own key ring, read only, and one key ring for each profile.

A profile's ring lies under the data folder; its secret keys are protected by a random passphrase
that rests in the OS keyring. No agent of it outlives a call.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gnupg

from sandbox.host import agents, process
from sandbox.host.keylisting import LISTING, read_listing
from sandbox.host.keyparts import material, parts_problem, version_problem, weakness
from sandbox.host.listing import SIGNED_ONLY, exported_keys
from sandbox.host.own_keys import OwnKeyring
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keydetails import Details, NewKey
from sandbox.model.keys import ExportedKeys, Key, addresses_of, key_problem
from sandbox.model.packets import Bundle, armored, read_keys
from sandbox.state import files

_MOST_SUBKEYS = 64
_NEW = NewKey()

Ask = Callable[[str], str]
"""Asks the user for the passphrase of a key, described by the argument."""


def _gpg(home: str | None, *options: str) -> Any:
    # python-gnupg speaks Latin-1 unless told otherwise; names and passphrases are UTF-8.
    gpg = gnupg.GPG(gnupghome=home, options=[SIGNED_ONLY, *options])
    gpg.encoding = "utf-8"
    # Keys from before UTF-8 have user ids that are no text, and hide no other key.
    gpg.decode_errors = "replace"
    return gpg


def export_secret(home: str | None, fingerprint: str, passphrase: str | None) -> bytes:
    """A secret key with all of its parts that are here, armored; empty when one stays locked.

    GnuPG writes what it could export before it fails: only its status tells that all is there.
    """
    command = ["gpg", *(("--homedir", home) if home else ()), "--batch", "--no-tty", "--armor"]
    mode = ("error",) if passphrase is None else ("loopback", "--passphrase-fd", "0")
    said = None if passphrase is None else f"{passphrase}\n".encode()
    export = ["--pinentry-mode", *mode, "--export-secret-keys", "--", fingerprint]
    done = process.run([*command, *export], input=said, check=False)
    return done.stdout if done.returncode == 0 else b""


class UserKeyring:
    """The user's own GnuPG, which is never changed."""

    def __init__(self, home: str | None) -> None:
        self._home = home

    def public(self, fingerprint: str) -> bytes:
        """The public key, or a MailboxError `key-not-found`."""
        return _checked_export(self._gpg().export_keys(fingerprint), fingerprint)

    def publics(self, fingerprints: Sequence[str]) -> dict[str, bytes]:
        """Public keys, all exported at once; raises MailboxError `key-not-found`."""
        found = exported_keys(self._gpg(), fingerprints)
        for each in fingerprints:
            if each not in found:
                raise _not_found(each)
        return found

    def has_secret(self, fingerprint: str) -> bool:
        """Whether the secret key is here."""
        return bool(self._listed(fingerprint))

    def describe(self, fingerprint: str) -> Details | None:
        """A key whose secret parts are here or on a smartcard; None when there is no such key."""
        home = () if self._home is None else ("--homedir", self._home)
        command = ["gpg", *home, "--batch", "--no-tty", *LISTING, "--list-secret-keys", fingerprint]
        return read_listing(process.run(command, check=False).stdout).get(fingerprint)

    def secret(self, fingerprint: str, ask: Ask) -> tuple[bytes, str]:
        """The secret key as GnuPG exports it, and its passphrase (empty when it has none)."""
        listed = self._listed(fingerprint)
        problem = parts_problem(listed[0]) if listed else None
        if not listed:
            raise _not_found(fingerprint)
        if problem:
            raise _unusable(f"The key {fingerprint}", problem)
        if exported := export_secret(self._home, fingerprint, None):
            return exported, ""
        passphrase = ask(fingerprint)
        if exported := export_secret(self._home, fingerprint, passphrase):
            return exported, passphrase
        raise wrong_passphrase(fingerprint)

    def _listed(self, fingerprint: str) -> list[Any]:
        found = self._gpg().list_keys(True)
        return [key for key in found if key["fingerprint"] == fingerprint]

    def _gpg(self) -> Any:
        return _gpg(self._home)


class ProfileKeyring:
    """The key ring of one profile."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def create(self) -> None:
        """Make the ring's folder and its agent's settings; raises `path-too-long`."""
        agents.refuse_long_path(self._home)
        files.private_folder(self._home)
        agents.configure(self._home)

    def destroy(self) -> None:
        """End the agent and remove the ring with everything in it."""
        if not self._home.exists():
            return
        agents.end(self._home)
        with files.readable_errors(self._home):
            shutil.rmtree(self._home)
            files.sync_folder(self._home.parent)

    def generate(self, name: str, address: str, passphrase: str, wish: NewKey = _NEW) -> str:
        """Make a key; returns its fingerprint."""
        with self._session() as gpg:
            settings = gpg.gen_key_input(
                **material(wish.algorithm),
                key_usage="cert" if wish.split else "cert,sign",
                subkey_usage="encrypt",
                name_real=name or address,
                name_email=address,
                expire_date=wish.lasts,
                passphrase=passphrase,
            )
            made = gpg.gen_key(settings)
            if not made.fingerprint:
                raise _failed("make a key", str(made.stderr))
            if wish.split:
                added = gpg.add_subkey(
                    made.fingerprint, passphrase, str(wish.algorithm), "sign", wish.lasts
                )
                if not added:
                    raise _failed("make a subkey for signing", str(added.stderr))
        return str(made.fingerprint)

    def add_own(
        self, armored: bytes, old: str, new: str, ask: Ask, *, retired: bool = False
    ) -> Key:
        """Import a secret key and protect it with `new` instead of its old passphrase.

        A retired one may have expired or been revoked.

        Raises:
            MailboxError: `key-unusable` with the reason, `key-passphrase-wrong`.
        """
        with self._session() as gpg:
            result = gpg.import_keys(armored, extra_args=["--pinentry-mode", "error"])
            key = self._find(gpg, _only(result.fingerprints, armored, "The key file"))
            listed = gpg.list_keys(True, keys=[key.fingerprint])
            problem = key_problem(key, own=True) or parts_problem(listed[0])
            problem = problem or weakness(listed[0])
            if problem and not retired:
                raise _unusable(key.fingerprint, problem)
            self._protect(key.fingerprint, old, new, ask)
        # At once: later the passphrase may be lost, and then the key could not be revoked.
        OwnKeyring(self._home).keep_certificate(key.fingerprint, new)
        return key

    def add_correspondents(self, public: Sequence[str]) -> None:
        """Import keys that were read and judged before; raises `key-unusable` otherwise."""
        wanted = {key.fingerprint for armored in public for key in _keys_in(armored)}
        with self._session() as gpg:
            taken = set(gpg.import_keys("\n".join(public)).fingerprints) if public else set()
        if wanted - taken:
            raise _unusable(" and ".join(sorted(wanted - taken)), "was not taken by GnuPG")

    def export(self, fingerprint: str, passphrase: str) -> ExportedKeys:
        """A key of the profile's for its machine, still protected by `passphrase`."""
        with self._session() as gpg:
            secret = export_secret(str(self._home), fingerprint, passphrase).decode()
            public = gpg.export_keys(fingerprint)
        if not secret or not public:
            raise MailboxError(
                "The profile's OpenPGP key could not be unlocked; the mail is untouched.",
                resolution="Check that keyring and data folder belong together.",
                code="key-locked",
                exit_code=Exit.KEYS,
            )
        return ExportedKeys(fingerprint, secret, passphrase, public)

    def public(self, fingerprints: list[str]) -> dict[str, str]:
        """Those of the public keys that are there, armored, without signatures of others."""
        with self._session() as gpg:
            found = exported_keys(gpg, fingerprints)
        return {each: armored(data) for each, data in found.items()}

    def published(self, fingerprint: str, address: str) -> bytes:
        """The public key for everybody: one address, no signatures of others (RFC 4880, binary).

        Raises:
            MailboxError: `key-unusable` when no valid user id has the address.
        """
        only = f"keep-uid=mbox = {address.lower()}"
        with self._session() as gpg:
            gpg.options = [*gpg.options, "--export-filter", only]
            exported: bytes = gpg.export_keys(fingerprint, armor=False, minimal=True)
            found = gpg.scan_keys_mem(exported) if exported else []
        user_ids = [each for key in found for each in key["uids"]]
        if len(found) != 1 or addresses_of(user_ids) != (address.lower(),):
            raise _unusable(f"The key {fingerprint}", f"has no valid user id with {address}")
        return exported

    def look(self, fingerprints: list[str]) -> list[Key]:
        """Those of the keys that are in the ring."""
        wanted = set(fingerprints)
        with self._session() as gpg:
            secret = {each["fingerprint"] for each in gpg.list_keys(True)}
            return [
                _key(found, found["fingerprint"] in secret)
                for found in gpg.list_keys()
                if found["fingerprint"] in wanted
            ]

    def _protect(self, fingerprint: str, old: str, new: str, ask: Ask) -> None:
        protected = self._is_protected()
        if protected and not old:
            old = ask(fingerprint)
        # Answers to the two hidden prompts of --passwd, through a pipe (gpg(1), --command-fd).
        # Without an old passphrase it asks for the new one once for each subkey.
        answers = ([old, new] if protected else [new]) * _MOST_SUBKEYS
        options = ["--pinentry-mode", "loopback", "--command-fd", "0", "--status-fd", "1", "--yes"]
        options += ["--display-charset", "utf-8"]
        done = process.run(
            ["gpg", "--homedir", str(self._home), *options, "--no-tty", "--passwd", fingerprint],
            input="".join(f"{answer}\n" for answer in answers).encode(),
            check=False,
            timeout=60,
        )
        if b"SUCCESS keyedit.passwd" not in done.stdout:
            raise wrong_passphrase(fingerprint)

    def _is_protected(self) -> bool:
        listing = process.run(
            ["gpg-connect-agent", "--homedir", str(self._home), "keyinfo --list", "/bye"]
        )
        # S KEYINFO grip type serial id cached protection ... (gpg-agent, HELP KEYINFO)
        fields = [line.split() for line in listing.stdout.decode().splitlines()]
        return any(len(row) > 7 and row[1] == "KEYINFO" and row[7] == "P" for row in fields)

    def _find(self, gpg: Any, fingerprint: str) -> Key:
        secret = any(each["fingerprint"] == fingerprint for each in gpg.list_keys(True))
        for found in gpg.list_keys(keys=[fingerprint]):
            if found["fingerprint"] == fingerprint:
                return _key(found, secret)
        raise _not_found(fingerprint)

    @contextlib.contextmanager
    def _session(self) -> Iterator[Any]:
        try:
            yield _gpg(str(self._home), "--trust-model", "always")
        finally:
            agents.end(self._home)
            # GnuPG leaves the mode of public key rings to the umask.
            for path in self._home.glob("pubring*"):
                path.chmod(0o600)
            files.sync_tree(self._home)


def _only(fingerprints: list[str], armored: bytes, which: str) -> str:
    if len(set(fingerprints)) == 1:
        return fingerprints[0]
    raise _unusable(which, version_problem(armored) or "does not hold exactly one key")


def _key(found: dict[str, Any], secret: bool) -> Key:
    return Key(
        fingerprint=found["fingerprint"],
        user_ids=tuple(found["uids"]),
        addresses=addresses_of(found["uids"]),
        capabilities=found["cap"],
        validity=found["trust"],
        expires=int(found["expires"]) if found["expires"] else None,
        secret=secret,
    )


def _keys_in(text: str) -> tuple[Bundle, ...]:
    try:
        return read_keys(text.encode())
    except ValueError as error:
        raise _unusable("The correspondent's key", str(error)) from None


def _checked_export(exported: str, fingerprint: str) -> bytes:
    if not exported:
        raise _not_found(fingerprint)
    return exported.encode()


def _not_found(fingerprint: str) -> MailboxError:
    return MailboxError(
        f"GnuPG has no key {fingerprint}; nothing was kept.",
        resolution="`gpg --list-secret-keys` shows your own, `gpg --list-keys` the others'.",
        code="key-not-found",
        exit_code=Exit.KEYS,
    )


def _unusable(which: str, reason: str) -> MailboxError:
    return MailboxError(
        f"{which} {reason}; nothing was kept.",
        resolution="Choose another key, or mend this one in GnuPG first.",
        code="key-unusable",
        exit_code=Exit.KEYS,
    )


def wrong_passphrase(fingerprint: str) -> MailboxError:
    """The error of a passphrase that does not open a key."""
    return MailboxError(
        f"That is not the passphrase of the key {fingerprint}; nothing was kept.",
        resolution="Try again.",
        code="key-passphrase-wrong",
        exit_code=Exit.KEYS,
    )


def _failed(what: str, text: str) -> MailboxError:
    return MailboxError(
        f"GnuPG could not {what}.",
        details="\n".join(text.strip().splitlines()[-3:]),
        resolution="`mailbox doctor` checks GnuPG.",
        code="gnupg-failed",
        exit_code=Exit.KEYS,
    )
