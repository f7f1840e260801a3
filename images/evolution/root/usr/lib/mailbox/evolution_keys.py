"""The desired keys in the guest's GnuPG, so that good signatures show as good."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
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
# Where nothing can be certified, each key is trusted as it was told (gpg(1), --trust-model).
UNCERTIFIED = "trust-model direct\n"
OWN, ACCEPTED = 6, 5  # ownertrust: ultimate, full
# The agent is the host's: none is started here.
HELD = "no-autostart\n"
_VALID = "fu"
_PLAIN = re.compile(r"[\w.+-]+@[\w.-]+")
TIMEOUT_S = 300
CHECK_TIMEOUT_S = 120
PROBE = "A mailbox tries its keys.\n"


class KeyFailureError(Exception):
    """A key of the desired state was not accepted."""


def of(wish: Json, home: Path, state: Path, env: Mapping[str, str]) -> Keys:
    """The keys as wished: with the private one on the volume, or without it in memory."""
    if wish.get("custody") == "host" and (wish.get("key") or wish.get("retired")):
        return HeldKeys(home, env, state / "gnupg")
    return Keys(home, env)


class Keys:
    """GnuPG's home of the mailbox."""

    def __init__(self, home: Path, env: Mapping[str, str], folder: Path | None = None) -> None:
        self.folder = self._folder = folder or home / ".gnupg"
        self._env = {**env, "GNUPGHOME": str(self._folder)}
        # Which keys came from the desired state: those that leave it are taken away again.
        self._note = self._folder / "mailbox-correspondents.json"

    def apply(self, wish: Json) -> list[tuple[str, str]]:
        """Make the key ring as wished; returns warnings, a code and a text each."""
        key, correspondents = wish.get("key"), wish.get("correspondents") or []
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / "gpg-agent.conf").write_text(AGENT)
        (self._folder / "gpg.conf").write_text(COMMON + ("" if key else UNCERTIFIED))
        marks = {_print(each): _mark(each, key) for each in correspondents}
        before = self._noted()
        self._withdraw([old for old, mark in before.items() if marks.get(old) != mark])
        known = self._known()
        self._forget([old for old in wish.get("forgotten") or [] if old.upper() in known])
        new = [each for each in correspondents if "valid" not in known.get(_print(each), ())]
        self._import([each["public"] for each in new], "a correspondent's key")
        for retired in wish.get("retired") or []:
            self._take(retired)  # opens the mail of its time, and signs nothing
        warnings = self._own_key(key) if key else []
        self._vouch_all(new, key)
        if not key:
            self._trust(correspondents, ACCEPTED)
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
        self._trust([key], OWN)
        return fingerprint

    def _judge(self, fingerprint: str) -> list[tuple[str, str]]:
        warnings = self._shortcomings(fingerprint)
        if not {code for code, _ in warnings} & {"key-expired", "key-cannot-sign"}:
            self._try(fingerprint)
        return warnings

    def _try(self, fingerprint: str) -> None:
        """Use the key once: it also brings its passphrase into the agent's memory."""
        tried = self._gpg("--local-user", fingerprint, "--sign", data="test", check=False)
        if tried.returncode:
            raise KeyFailureError(
                f"The secret key {fingerprint} cannot be used: {_tail(tried.stderr)}"
            )

    def _shortcomings(self, fingerprint: str) -> list[tuple[str, str]]:
        record = next(iter(self._records("pub", fingerprint)), [])
        capabilities, validity = (record[11], record[1]) if len(record) > 11 else ("", "")
        if validity == "e":
            return [("key-expired", f"The key {fingerprint} has expired.")]
        return [
            (f"key-cannot-{use}", f"The key {fingerprint} cannot be used to {use}.")
            for letter, use in (("E", "encrypt"), ("S", "sign"))
            if letter not in capabilities
        ]

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

    def _trust(self, keys: list[Json], level: int) -> None:
        lines = [f"{_print(each)}:{level}:\n" for each in keys]
        if lines:
            self._gpg("--import-ownertrust", data="".join(lines))

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

    def _forget(self, destroyed: list[str]) -> None:
        """A key that was destroyed on the host leaves nothing here."""
        for fingerprint in destroyed:
            done = self._gpg("--yes", "--delete-secret-and-public-key", fingerprint, check=False)
            if done.returncode:
                raise KeyFailureError(f"{fingerprint} could not be removed: {_tail(done.stderr)}")

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

    # -- proving

    def check(self, request: Json) -> Iterator[tuple[str, str]]:
        """Write a mail with each key and read it again; the key, and why it could not be done."""
        own = request.get("own")
        others = [each["fingerprint"] for each in request["correspondents"]]
        for key in [*([own] if own else []), *others]:
            try:
                yield key, self._round_trip(own, key)
            except subprocess.TimeoutExpired:
                yield key, "GnuPG gave no answer in time"

    def _round_trip(self, own: str | None, key: str) -> str:
        recipients = dict.fromkeys(filter(None, (own, key)))
        to = [word for name in recipients for word in ("--recipient", name)]
        sign = ["--local-user", own, "--sign"] if own else []
        made = self._gpg("--armor", *to, *sign, "--encrypt", data=PROBE, check=False, probe=True)
        if made.returncode:
            what = "signed and encrypted" if own else "encrypted"
            return f"a mail could not be {what}: {_tail(made.stderr)}"
        if own is None:
            return ""  # only the correspondent could read it
        read = self._gpg("--status-fd", "2", "--decrypt", data=made.stdout, check=False, probe=True)
        status = [line.split()[1:] for line in read.stderr.splitlines() if line[:9] == "[GNUPG:] "]
        if read.stdout == PROBE and is_good(status, own, len(recipients)):
            return ""
        return f"the mail could not be read again: {_tail(read.stderr)}"

    def _gpg(
        self, *arguments: str, data: str = "", check: bool = True, probe: bool = False
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["gpg", "--batch", "--no-tty", *arguments],
            input=data,
            capture_output=True,
            text=True,
            errors="replace",
            env=self._env,
            check=check,
            timeout=CHECK_TIMEOUT_S if probe else TIMEOUT_S,
        )


class HeldKeys(Keys):
    """Public keys only, in memory, made anew each time; GnuPG asks the host for the private one.

    Nothing is certified here, since that is not among what the host signs for a machine: every key
    of this ring counts, so only what was accepted gets into it.
    """

    def apply(self, wish: Json) -> list[tuple[str, str]]:
        """Make the key ring as wished; returns warnings, a code and a text each."""
        key, correspondents = wish.get("key"), wish.get("correspondents") or []
        private = [*([key] if key else []), *(wish.get("retired") or [])]
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        (self._folder / "gpg.conf").write_text(COMMON + UNCERTIFIED + HELD)
        self._lead_to(str(wish["agent"]))
        self._import([each["public"] for each in private], "the public key")
        self._import([each["public"] for each in correspondents], "a correspondent's key")
        known = self._known()
        for each in correspondents:
            self._vouch(each, None, known)
            self._leave_accepted(each, known[str(each["fingerprint"]).upper()])
        self._trust(correspondents, ACCEPTED)
        self._trust(private, OWN)
        return self._own_key(key) if key else []

    def _judge(self, fingerprint: str) -> list[tuple[str, str]]:
        """Nothing is signed for a try: somebody would be asked."""
        warnings = self._shortcomings(fingerprint)
        if not self._has_secret(fingerprint):
            what = f"The host does not offer the private key {fingerprint} now."
            warnings.append(("key-away", f"{what} Encrypted mail cannot be read until it does."))
        return warnings

    def _take(self, key: Json) -> str:
        return str(key["fingerprint"]).upper()

    def _lead_to(self, agent: str) -> None:
        """GnuPG follows such a file to the real socket (libassuan, "socket redirection")."""
        listing = ["gpgconf", "--list-dirs", "agent-socket"]
        done = subprocess.run(listing, env=self._env, capture_output=True, text=True, check=True)
        place = Path(done.stdout.strip())
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.write_text(f"%Assuan%\nsocket={agent}\n")

    def _leave_accepted(self, each: Json, names: set[str]) -> None:
        """Take the names out of a key that it was not accepted for (gpg(1), --import-filter)."""
        wished = {str(address).lower() for address in each.get("addresses") or []}
        found = {address_of(name) for name in names - {"valid"}}
        keep = sorted(address for address in found & wished if _PLAIN.fullmatch(address))
        if not keep or found <= wished:
            return
        only = "keep-uid=" + " || ".join(f"mbox = {address}" for address in keep)
        self._gpg("--yes", "--delete-keys", str(each["fingerprint"]))
        self._gpg("--import-filter", only, "--import", data=each["public"])


def is_good(status: list[list[str]], own: str, recipients: int) -> bool:
    """Whether GnuPG's status (doc/DETAILS) tells of a mail to so many keys, signed by `own`."""
    words = {line[0] for line in status if line}
    signers = {line[-1] for line in status if line and line[0] == "VALIDSIG"}
    readers = {line[1] for line in status if len(line) > 1 and line[0] == "ENC_TO"}
    complete = {"DECRYPTION_OKAY", "GOODSIG"} <= words and len(readers) == recipients
    return complete and signers == {own.upper()}


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
