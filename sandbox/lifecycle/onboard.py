"""`onboard`: a new profile with its keys, its secrets and its volume; undone as a whole."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.lifecycle.check import check_account
from sandbox.lifecycle.correspondents import from_user, look_into, with_accepted
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.held import is_held_by_user, take_held
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.rekey import rekey, wrong_code
from sandbox.lifecycle.settle import settle, unfinished_name
from sandbox.model.account import Account
from sandbox.model.custody import Where
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.keydetails import NewKey
from sandbox.model.keys import day_of
from sandbox.model.names import COLOURS, name_problem
from sandbox.model.offers import Offer, Source, without_own
from sandbox.model.openpgp import Correspondent, Keys
from sandbox.model.profile import Profile, Settings
from sandbox.model.recovery import CODE_SLOT, new_code
from sandbox.model.secrets import DAV_PASSWORD, KEY_PASSPHRASE, MAIL_PASSWORD, VOLUME_KEY
from sandbox.state import files


@dataclass(frozen=True)
class KeyChoice:
    """Where the profile's own key comes from: GnuPG, a file, a new one, or (all unset) none."""

    fingerprint: str | None = None
    file: bytes | None = field(default=None, repr=False)
    generate: bool = False
    ask: Callable[[str], str] = field(default=lambda _description: "", repr=False)


@dataclass(frozen=True)
class Adoption:
    """A volume of another computer, and the recovery code that opens it."""

    source: Path
    code: str = field(repr=False)


@dataclass(frozen=True)
class Wish:
    """What `onboard` was asked for; every value has been checked."""

    name: str
    template: str
    account: Account
    settings: Settings
    password: str = field(repr=False)
    # Of calendars and address books that have another one than the mail.
    dav_password: str = field(default="", repr=False)
    key: KeyChoice = field(default_factory=KeyChoice)
    correspondents: tuple[str | Source, ...] = field(default=(), repr=False)
    # How those of them were accepted that an older profile has.
    accepted: tuple[Correspondent, ...] = ()
    colour: str = ""
    check_servers: bool = True
    reuse_name: bool = False
    adopt: Adoption | None = None
    # Who is given the recovery code; without anybody, none is made.
    hand_over: Callable[[str], None] | None = field(default=None, repr=False)


def plan_onboard(wish: Wish, profile_id: uuid.UUID) -> Plan:
    """The steps of an onboarding; the profile's file comes last and makes it count."""
    recovery = (
        Step("recovery", "Making the recovery code", "a way back when the keyring is lost"),
        Step("code", "Handing over the recovery code", "it is kept nowhere on this computer"),
    )
    making = (Step("volume", "Making the encrypted volume", "the only place where the mail rests"),)
    adopting = (
        Step("adopt", "Copying the volume", "the file that was named is only read"),
        Step("rekey", "Giving the copy a key of this computer", "opening must not need the code"),
    )
    steps = (
        Step("secrets", "Storing the secrets in the keyring", "they rest nowhere else"),
        Step("keys", "Taking the OpenPGP keys", "the profile has a key ring of its own"),
        *(adopting if wish.adopt else making),
        *(recovery if wish.hand_over else ()),
        Step("profile", "Writing the profile", "the mailbox exists from here on"),
    )
    return Plan("onboard", wish.name, steps, {"profile_id": str(profile_id)})


def onboard(house: House, wish: Wish) -> Result:
    """Make the profile, or leave nothing behind."""
    with house.locked(wish.name, "onboard"):
        settle(house, unfinished_name(house, wish.name) or wish.name)
        _refuse_existing(house, wish)
        house.vault.check()
        wish = _with_size(house, wish)
        offers = _offers(house, wish)
        wish, checked = _check_servers(house, wish)
        draft = _draft(house, wish)
        work = _Onboarding(house, wish, draft, offers)
        timings = run(
            plan_onboard(wish, draft.id),
            work.effects(),
            house.journal(wish.name),
            house.progress,
            undo=lambda: undo_onboard(house, wish.name, draft.id),
        )
    facts = {
        "id": str(draft.id),
        "fingerprint": work.profile.keys.fingerprint,
        "correspondents": [each.fingerprint for each in work.profile.keys.correspondents],
        "recovery_code": wish.hand_over is not None,
        "servers_checked": wish.check_servers,
        "server_check": checked,
        "calendars": [each.url for each in wish.account.calendars],
        "address_books": [each.url for each in wish.account.address_books],
        "seconds": {timing.step: round(timing.seconds, 3) for timing in timings},
    }
    return Result("onboard", wish.name, f"The mailbox {wish.name} is ready to open.", facts)


def undo_onboard(house: House, name: str, profile_id: uuid.UUID) -> None:
    """Remove everything an unfinished onboarding made; the secrets last, they lock the rest."""
    house.records.remove(name)
    house.volumes.remove(house.paths.volume(name))
    files.remove(house.paths.blank(name))
    house.profile_keyring(name).destroy()
    for kind in (VOLUME_KEY, MAIL_PASSWORD, DAV_PASSWORD, KEY_PASSPHRASE):
        house.vault.delete(profile_id, kind)


def check_first(house: House, name: str, *, reuse_name: bool) -> None:
    """Refuse, before anything is asked, what no answer can mend; warn where `open` would fail.

    Raises:
        InvalidInputError: `name` is no name.
        MailboxError: `profile-exists`, `name-shredded`, `keyring-missing`, `keyring-unsafe`.
    """
    problem = name_problem(name)
    if problem:
        raise InvalidInputError("The name", [problem])
    _refuse_known(house, name, reuse_name=reuse_name)
    house.vault.check()
    try:
        house.machines.states()
    except MailboxError as error:
        house.progress.warn(f"{error.brief} Until it does, this mailbox cannot be opened.")


def _refuse_existing(house: House, wish: Wish) -> None:
    _refuse_known(house, wish.name, reuse_name=wish.reuse_name)
    for path in (house.paths.volume(wish.name), house.paths.gnupg(wish.name)):
        if path.exists():
            raise _in_the_way(path)


def _refuse_known(house: House, name: str, *, reuse_name: bool) -> None:
    known = house.records.find(name)
    if known:
        raise MailboxError(
            f"A mailbox named {known} exists already; it was not touched.",
            resolution=f"Choose another name, or `mailbox open {known}`.",
            code="profile-exists",
            exit_code=Exit.EXISTS,
        )
    stone = house.records.tombstone(name)
    if stone and not reuse_name:
        raise MailboxError(
            f"A mailbox named {stone.name} was shredded on {stone.when_and_why}.",
            details="A new one would be another profile, without anything of the old one.",
            resolution="Choose another name, or say --reuse-name.",
            code="name-shredded",
            exit_code=Exit.EXISTS,
        )


def _with_size(house: House, wish: Wish) -> Wish:
    """A wish that adopts a volume has that volume's size; its code is tried first."""
    if wish.adopt is None:
        return wish
    source = wish.adopt.source
    house.volumes.check(source)
    if house.keyslots.find(source, wish.adopt.code.encode()) is None:
        raise wrong_code(str(source))
    facts = house.volumes.look(source)
    size = (facts.size if facts else 0) - house.keyslots.expected_size(source, 0)
    return replace(wish, settings=replace(wish.settings, volume_size=size))


def _in_the_way(path: Path) -> MailboxError:
    return MailboxError(
        f"{path} is there already, though no mailbox is named so; it was not touched.",
        resolution="Move it away, or choose another name.",
        code="volume-exists",
        exit_code=Exit.EXISTS,
    )


def _check_servers(house: House, wish: Wish) -> tuple[Wish, Any]:
    """What the servers said; the wish then names the collections that were found on them."""
    if not wish.check_servers:
        return wish, None
    account, checked = check_account(house, wish.account, wish.password, wish.dav_password)
    return replace(wish, account=account), checked


def _offers(house: House, wish: Wish) -> tuple[Offer, ...]:
    """The correspondents' keys, read and judged before anything is written."""
    named = [each for each in wish.correspondents if isinstance(each, str)]
    files = [each for each in wish.correspondents if isinstance(each, Source)]
    found = look_into(house, [*from_user(house, named), *files], whole=True)
    return tuple(offer for each in found for offer in each.offers)


def _draft(house: House, wish: Wish) -> Profile:
    return Profile(
        id=uuid.uuid4(),
        name=wish.name,
        template=wish.template,
        colour=wish.colour or _free_colour(house),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        account=wish.account,
        settings=wish.settings,
    )


def _free_colour(house: House) -> str:
    """A colour that no other profile has, as long as there is one."""
    taken = set()
    for name in house.records.names():
        try:
            taken.add(house.records.load(name).colour)
        except MailboxError:
            continue
    free = [colour for colour in COLOURS.values() if colour not in taken]
    return (free or list(COLOURS.values()))[0]


class _Onboarding:
    """The effects of one onboarding; `profile` gathers what is learnt on the way."""

    def __init__(self, house: House, wish: Wish, draft: Profile, offers: tuple[Offer, ...]) -> None:
        self.profile = draft
        self._house = house
        self._wish = wish
        self._offers = offers
        self._volume_key = house.vault.new_key()
        self._passphrase = house.vault.new_key().decode()
        self._code = new_code()

    def effects(self) -> dict[str, Any]:
        return {
            "secrets": self._store_secrets,
            "keys": self._take_keys,
            "volume": self._make_volume,
            "adopt": self._adopt,
            "rekey": self._rekey,
            "recovery": self._make_keyslot,
            "code": self._hand_over,
            "profile": self._write_profile,
        }

    def _store_secrets(self) -> None:
        vault, identity = self._house.vault, self.profile.id
        vault.put(identity, VOLUME_KEY, self._volume_key.decode())
        vault.put(identity, MAIL_PASSWORD, self._wish.password)
        if self._wish.dav_password:
            vault.put(identity, DAV_PASSWORD, self._wish.dav_password)
        vault.put(identity, KEY_PASSPHRASE, self._passphrase)

    def _take_keys(self) -> dict[str, Any]:
        ring = self._house.profile_keyring(self._wish.name)
        ring.create()
        own = self._take_own_key(ring)
        ends = {key.fingerprint: day_of(key.expires) for key in ring.look([own] if own else [])}
        taken = self._take_correspondents(ring, own)
        keys = Keys(own, taken, expires=ends.get(own or "", ""))
        self.profile = replace(self.profile, keys=keys)
        return {"fingerprint": own, "correspondents": len(keys.correspondents)}

    def _take_own_key(self, ring: Any) -> str | None:
        choice, account = self._wish.key, self._wish.account
        if choice.generate:
            # What a machine signs with a key on the host must not be able to change that key.
            split = self._wish.settings.custody.where is Where.HOST
            made: str = ring.generate(
                account.display_name, account.address, self._passphrase, NewKey(split=split)
            )
            return made
        old = ""
        if choice.fingerprint and is_held_by_user(self._wish.settings):
            return self._named(take_held(self._house, ring, choice.fingerprint))
        if choice.fingerprint:
            armored, old = self._house.user_keyring.secret(choice.fingerprint, choice.ask)
        elif choice.file is not None:
            armored = choice.file
        else:
            return None
        return self._named(ring.add_own(armored, old, self._passphrase, choice.ask))

    def _named(self, key: Any) -> str:
        address = self._wish.account.address
        if address.lower() not in key.addresses:
            self._house.progress.warn(
                f"The key {key.fingerprint} does not name {address}; "
                "correspondents may not find it by that address."
            )
        return str(key.fingerprint)

    def _take_correspondents(self, ring: Any, own: str | None) -> tuple[Correspondent, ...]:
        without_own(self._offers, own)
        ring.add_correspondents([each.public for each in self._offers])
        before = {each.fingerprint: each for each in self._wish.accepted}
        return tuple(before.get(each.fingerprint, each) for each in with_accepted((), self._offers))

    def _make_volume(self) -> dict[str, Any]:
        path = self._house.paths.volume(self._wish.name)
        size = self._wish.settings.volume_size
        # Before the volume: one that never held a file system must not look like a damaged one.
        files.replace(self._house.paths.blank(self._wish.name), b"")
        self._house.volumes.create(path, size, self._volume_key)
        header = self._house.keyslots.fingerprints(path)
        return {"size": size, "cipher": "aes-256-xts", "keyslots": 1, "header": header}

    def _adopt(self) -> dict[str, Any]:
        adoption, path = self._adoption(), self._house.paths.volume(self._wish.name)
        blank = self._house.paths.blank(self._wish.name)
        files.replace(blank, b"")
        if self._house.volumes.adopt(adoption.source, path):
            files.remove(blank)
        return {"size": self._wish.settings.volume_size}

    def _rekey(self) -> dict[str, Any]:
        path = self._house.paths.volume(self._wish.name)
        return rekey(self._house.keyslots, path, self._adoption().code, self._volume_key)

    def _adoption(self) -> Adoption:
        if self._wish.adopt is None:
            raise RuntimeError("there is no volume to adopt")
        return self._wish.adopt

    def _make_keyslot(self) -> dict[str, Any]:
        path, slots = self._house.paths.volume(self._wish.name), self._house.keyslots
        slots.add(path, CODE_SLOT, self._volume_key, self._code.encode(), slow=True)
        return {"keyslot": CODE_SLOT, "header": slots.fingerprints(path)}

    def _hand_over(self) -> None:
        if self._wish.hand_over:
            self._wish.hand_over(self._code)

    def _write_profile(self) -> None:
        self._house.records.save(self.profile)
