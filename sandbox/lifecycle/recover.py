"""`recover`: a mailbox whose keyring is lost, brought back with its recovery code.

The code's keyslot is never touched, so that at every moment the code opens the volume; a recovery
that was stopped is begun again. What the keyring still has is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.lifecycle import rings, smime
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.header import RENEW, has_backup, write_backup
from sandbox.lifecycle.held import is_held_by_user
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.machine import passwords
from sandbox.lifecycle.onboard import KeyChoice
from sandbox.lifecycle.rekey import rekey, wrong_code
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.lifecycle.soundness import refuse_open
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.profile import Profile
from sandbox.model.secrets import (
    DAV_PASSWORD,
    KEY_PASSPHRASE,
    MAIL_PASSWORD,
    SMIME_PASSPHRASE,
    VOLUME_KEY,
)

VERB = "recover"
_STEPS = (
    Step("secrets", "Storing new secrets in the keyring", "the lost ones cannot be had again"),
    Step("keyslot", "Giving the volume its new key", "opening must not need the code"),
    RENEW,
    Step("keys", "Taking the OpenPGP key again", "the lost keyring locked the copy that is here"),
    Step("profile", "Writing the profile", "it names the keys that are there"),
)


def _not_given() -> str:
    raise MailboxError(
        "The password of the calendars is lost with the keyring; nothing was changed.",
        resolution="Give it with --dav-password-stdin or --dav-password-fd.",
        code="password-missing",
        exit_code=Exit.USAGE,
    )


@dataclass(frozen=True)
class Means:
    """What a recovery has: the code, and whom to ask for what the keyring lost."""

    code: str = field(repr=False)
    password: Callable[[], str] = field(repr=False)
    key: KeyChoice = field(default_factory=KeyChoice)
    without_key: bool = False
    dav_password: Callable[[], str] = field(default=_not_given, repr=False)


@dataclass(frozen=True)
class Needs:
    """What is to be brought back."""

    secrets: tuple[str, ...]
    keyslot: bool
    keys: bool
    backup: bool = False
    certificate: bool = False


def plan_recover(name: str, profile: Profile, needs: Needs) -> Plan:
    """Only the steps there is need for."""
    wanted = {
        "secrets": bool(needs.secrets),
        "keyslot": needs.keyslot,
        "backup": needs.keyslot and needs.backup,
        "keys": needs.keys,
        "profile": needs.keys or needs.certificate,
    }
    steps = tuple(step for step in _STEPS if wanted[step.id])
    return Plan(VERB, name, steps, {"profile_id": str(profile.id)})


def look_ahead(house: House, name: str, means: Means) -> Plan:
    """What `recover` would do, from what is seen with the code; refused as it would be."""
    profile = house.records.load(name)
    refuse_open(house, name)
    house.vault.check()
    return plan_recover(name, profile, _Recovery(house, profile, means).look())


def recover(house: House, name: str, means: Means) -> Result:
    """Bring the profile back; one that lacks nothing stays as it is."""
    known = settle_name(house, name)
    with house.locked(known, VERB):
        settle(house, known)
        profile = house.records.load(known)
        refuse_open(house, known)
        house.vault.check()
        work = _Recovery(house, profile, means)
        needs = work.look()
        if not (needs.secrets or needs.keyslot or needs.keys or needs.certificate):
            return Result(VERB, known, f"{known} lacks nothing.", {"already": True})
        work.gather(needs)
        run(
            plan_recover(known, profile, needs),
            work.effects(),
            house.journal(known),
            house.progress,
        )
    facts = {
        "already": False,
        "secrets": list(needs.secrets),
        "keyslot": needs.keyslot,
        "fingerprint": work.profile.keys.fingerprint,
        "key_lost": needs.keys and work.profile.keys.fingerprint is None,
    }
    return Result(VERB, known, f"{known} is recovered and ready to open.", facts)


class _Recovery:
    """The effects of one recovery; secrets live in this object's memory and nowhere else."""

    def __init__(self, house: House, profile: Profile, means: Means) -> None:
        self.profile = profile
        self._house = house
        self._means = means
        self._code = means.code.encode()
        self._path = house.paths.volume(profile.name)
        self._new: dict[str, str] = {}
        self._own: tuple[bytes, str] | None = None
        self._retired: tuple[tuple[bytes, str], ...] = ()
        self._public: dict[str, str] = {}

    def look(self) -> Needs:
        """What there is need for; raises when the code does not open the volume."""
        house, profile = self._house, self.profile
        house.volumes.check(self._path)
        if house.keyslots.find(self._path, self._code) is None:
            raise wrong_code(profile.name)
        kinds = (VOLUME_KEY, *passwords(profile), KEY_PASSPHRASE)
        kept = {kind: house.vault.get(profile.id, kind) for kind in kinds}
        key = kept[VOLUME_KEY]
        opens = key is not None and house.keyslots.find(self._path, key.encode()) is not None
        locked = rings.is_locked(house, profile, kept[KEY_PASSPHRASE])
        missing = tuple(kind for kind in kinds if kept[kind] is None)
        lost = profile.smime and house.vault.get(profile.id, SMIME_PASSPHRASE) is None
        return Needs(
            missing,
            keyslot=not opens,
            keys=locked,
            backup=has_backup(house, profile.name),
            certificate=bool(lost),
        )

    def gather(self, needs: Needs) -> None:
        """Ask for everything before anything is changed."""
        vault, means = self._house.vault, self._means
        asked = {MAIL_PASSWORD: means.password, DAV_PASSWORD: means.dav_password}
        for kind in needs.secrets:
            ask = asked.get(kind)
            self._new[kind] = ask() if ask else vault.new_key().decode()
        if needs.certificate:
            self._house.progress.warn(
                "The lost keyring locked the S/MIME certificate; it is dropped. Take it again with "
                f"`mailbox keys smime {self.profile.name} FILE`."
            )
            self.profile = replace(self.profile, smime=None)
        if needs.keys:
            self._public = rings.correspondents(self._house, self.profile)
            self._own = self._own_key()
            self._retired = tuple(self._retired_keys())

    def _own_key(self) -> tuple[bytes, str] | None:
        choice, wanted = self._means.key, self.profile.keys.fingerprint
        if wanted is None or self._means.without_key or is_held_by_user(self.profile.settings):
            return None
        if choice.file is not None:
            return choice.file, ""
        try:
            return self._house.user_keyring.secret(wanted, choice.ask)
        except MailboxError as error:
            if error.code != "key-not-found":
                raise
            raise _key_lost(self.profile.name, wanted) from None

    def _retired_keys(self) -> Iterator[tuple[bytes, str]]:
        for each in self.profile.keys.retired:
            try:
                yield self._house.user_keyring.secret(each, self._means.key.ask)
            except MailboxError:
                self._house.progress.warn(
                    f"{each}, which {self.profile.name} had before, cannot be unlocked without the "
                    "lost keyring. The mail client keeps its own copy on the volume, unless the "
                    "key was kept on the host only."
                )

    def effects(self) -> dict[str, Any]:
        return {
            "secrets": self._store,
            "keyslot": self._rekey,
            "backup": lambda: write_backup(self._house, self.profile.name),
            "keys": self._renew_ring,
            "profile": self._write,
        }

    def _store(self) -> dict[str, Any]:
        for kind, secret in self._new.items():
            self._house.vault.put(self.profile.id, kind, secret)
        return {"stored": list(self._new)}

    def _rekey(self) -> dict[str, Any]:
        key = self._kept(VOLUME_KEY).encode()
        return rekey(self._house.keyslots, self._path, self._means.code, key)

    def _renew_ring(self) -> dict[str, Any]:
        passphrase = self._kept(KEY_PASSPHRASE)
        known = self.profile
        if self._means.without_key:
            # Its public part is kept with the retired ones', so that it can still be revoked.
            had = replace(known.keys, fingerprint=None, retired=known.keys.private)
            known = replace(known, keys=had)
        keys = rings.renew(
            self._house,
            known,
            self._own,
            self._retired,
            self._public,
            passphrase,
            self._means.key.ask,
        )
        self.profile = replace(self.profile, keys=keys)
        return {"fingerprint": keys.fingerprint, "correspondents": len(keys.correspondents)}

    def _write(self) -> None:
        self._house.records.save(self.profile)
        smime.tidy(self._house, self.profile.name)

    def _kept(self, kind: str) -> str:
        return self._house.vault.get(self.profile.id, kind) or ""


def _key_lost(name: str, fingerprint: str) -> MailboxError:
    return MailboxError(
        f"The OpenPGP key {fingerprint} of {name} cannot be unlocked without the lost keyring, "
        "and your GnuPG does not have it; nothing was changed.",
        details="Unless it was kept on the host only, the mail client has a copy on the volume, "
        "which you can export once the mailbox is open.",
        resolution="Give the key with --key-file, or say --without-key to go on without.",
        code="key-not-found",
        exit_code=Exit.KEYS,
    )
