"""The desired keys in the guest's GnuPG, so that good signatures show as good."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

Json = dict[str, Any]

AGENT = """\
pinentry-program /usr/lib/mailbox/pinentry_keyring.py
default-cache-ttl 34560000
max-cache-ttl 34560000
"""
# There is no network, and nobody who could answer.
COMMON = "disable-dirmngr\nno-auto-key-locate\nno-auto-key-retrieve\nno-greeting\n"
# Without an own key nothing can be certified; only keys that were accepted are in this key ring.
WITHOUT_OWN_KEY = "trust-model always\n"
_VALID = "fu"
TIMEOUT_S = 300


class KeyFailureError(Exception):
    """A key of the desired state was not accepted."""


class Keys:
    """GnuPG's home of the mailbox."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self._folder = home / ".gnupg"
        self._env = env
        # Which keys came from the desired state: those that leave it are taken away again.
        self._note = self._folder / "mailbox-correspondents.json"

    def apply(self, wish: Json) -> list[tuple[str, str]]:
        """Make the key ring as wished; returns warnings, a code and a text each."""
        key, correspondents = wish.get("key"), wish.get("correspondents") or []
        if key and not key.get("secret"):
            raise KeyFailureError("Evolution cannot use a key that stays on the host yet.")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / "gpg-agent.conf").write_text(AGENT)
        (self._folder / "gpg.conf").write_text(COMMON + ("" if key else WITHOUT_OWN_KEY))
        marks = {_print(each): _mark(each, key) for each in correspondents}
        before = self._noted()
        self._withdraw([old for old, mark in before.items() if marks.get(old) != mark])
        known = self._known()
        new = [each for each in correspondents if "valid" not in known.get(_print(each), ())]
        self._import([each["public"] for each in new], "a correspondent's key")
        for retired in wish.get("retired") or []:
            self._take(retired)  # opens the mail of its time, and signs nothing
        warnings = self._own_key(key) if key else []
        self._vouch_all(new, key)
        self._note.write_text(json.dumps(marks))
        return warnings

    def _own_key(self, key: Json) -> list[tuple[str, str]]:
        return self._judge(self._take(key))

    def _take(self, key: Json) -> str:
        fingerprint = str(key["fingerprint"]).upper()
        if not self._has_secret(fingerprint):
            self._import([key["secret"]], "the secret key")
        if key.get("public"):
            self._import([key["public"]], "the public key")  # new user ids and dates of expiry
        if not self._has_secret(fingerprint):
            raise KeyFailureError(f"The secret key {fingerprint} did not arrive.")
        self._gpg("--import-ownertrust", data=f"{fingerprint}:6:\n")
        return fingerprint

    def _judge(self, fingerprint: str) -> list[tuple[str, str]]:
        """Try the key once: it also brings its passphrase into the agent's memory."""
        record = next(iter(self._records("pub", fingerprint)), [])
        capabilities, validity = (record[11], record[1]) if len(record) > 11 else ("", "")
        if validity == "e":
            return [("key-expired", f"The key {fingerprint} has expired.")]
        warnings = [
            (f"key-cannot-{use}", f"The key {fingerprint} cannot be used to {use}.")
            for letter, use in (("E", "encrypt"), ("S", "sign"))
            if letter not in capabilities
        ]
        if "S" in capabilities:
            tried = self._gpg("--local-user", fingerprint, "--sign", data="test", check=False)
            if tried.returncode:
                raise KeyFailureError(
                    f"The secret key {fingerprint} cannot be used: {_tail(tried.stderr)}"
                )
        return warnings

    def _vouch_all(self, new: list[Json], key: Json | None) -> None:
        """Certify correspondents' keys for this key ring only; the trust is reckoned once."""
        known = self._known() if new else {}
        for each in new:
            self._vouch(each, key, known)
        if new and key:
            self._gpg("--check-trustdb", check=False)

    def _vouch(self, each: Json, key: Json | None, known: dict[str, set[str]]) -> None:
        fingerprint = _print(each)
        if fingerprint not in known:
            raise KeyFailureError(f"The public key {fingerprint} was not accepted.")
        if key is None:
            return
        wished = {str(address).lower() for address in each.get("addresses") or []}
        names = [uid for uid in known[fingerprint] if address_of(uid) in wished]
        command = ["--yes", "--no-auto-check-trustdb", "--local-user", str(key["fingerprint"])]
        done = self._gpg(*command, "--quick-lsign-key", fingerprint, *names, check=False)
        if done.returncode:
            raise KeyFailureError(
                f"The key {fingerprint} could not be vouched for: {_tail(done.stderr)}"
            )

    def _known(self) -> dict[str, set[str]]:
        """Fingerprint to the user ids of each key, with `valid` among them if one is trusted."""
        found: dict[str, set[str]] = {}
        names: set[str] = set()
        fresh = False
        for fields in self._records("", None):
            if fields[0] == "pub":
                names, fresh = set(), True
            elif fields[0] == "fpr" and fresh:
                found[fields[9]], fresh = names, False
            elif fields[0] == "uid":
                names.add(unescaped(fields[9]))
                if fields[1] and fields[1] in _VALID:
                    names.add("valid")
        return found

    def _noted(self) -> dict[str, str]:
        """What came from the last state: fingerprint to mark; without one from an older image."""
        try:
            before = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return {}
        if isinstance(before, list):
            return {str(old).upper(): "" for old in before}
        return {str(old): str(mark) for old, mark in before.items()}

    def _withdraw(self, gone: list[str]) -> None:
        """Take keys away, and with them for whom they were vouched for."""
        if gone:
            there = self._known()
            listed = [old for old in gone if old in there]
            if listed:
                self._gpg("--yes", "--delete-keys", *listed, check=False)

    def _import(self, armored: list[str], what: str) -> None:
        if not armored:
            return
        done = self._gpg("--import", data="\n".join(armored), check=False)
        if done.returncode:
            raise KeyFailureError(f"GnuPG did not take {what}: {_tail(done.stderr)}")

    def _has_secret(self, fingerprint: str) -> bool:
        done = self._gpg("--with-colons", "--list-secret-keys", fingerprint, check=False)
        return done.returncode == 0

    def _records(self, kind: str, fingerprint: str | None) -> list[list[str]]:
        which = [fingerprint] if fingerprint else []
        done = self._gpg("--with-colons", "--list-keys", *which, check=False)
        records = [line.split(":") for line in done.stdout.splitlines()]
        return [fields for fields in records if not kind or fields[0] == kind]

    def _gpg(
        self, *arguments: str, data: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["gpg", "--batch", "--no-tty", *arguments],
            input=data,
            capture_output=True,
            text=True,
            errors="replace",
            env=self._env,
            check=check,
            timeout=TIMEOUT_S,
        )


def _print(each: Json) -> str:
    return str(each["fingerprint"]).upper()


def _mark(each: Json, key: Json | None) -> str:
    """Changes with the key, with whom it is accepted for, and with who vouches for it."""
    addresses = sorted(str(address).lower() for address in each.get("addresses") or [])
    told = json.dumps([each["public"], addresses, _print(key) if key else ""])
    return hashlib.sha256(told.encode()).hexdigest()


def address_of(uid: str) -> str:
    """The mail address of a user id."""
    found = re.search(r"<([^<>\s]+@[^<>\s]+)>\s*$", uid)
    return (found[1] if found else uid).strip().lower()


def unescaped(field: str) -> str:
    r"""A field of GnuPG's listing without its \xNN (doc/DETAILS)."""
    raw = re.sub(
        rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), field.encode(errors="replace")
    )
    return raw.decode(errors="replace")


def _tail(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-3:])
