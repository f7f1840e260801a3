"""`keys add`: correspondents' keys, read and judged first, then taken into ring and profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.keys import WRITE, changed
from sandbox.lifecycle.machine import secrets_of
from sandbox.lifecycle.settle import settle
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.offers import Offer, Offered, Source, Way, offered, refuse_unusable, without_own
from sandbox.model.openpgp import Correspondent
from sandbox.model.profile import Profile
from sandbox.model.secrets import MAIL_PASSWORD


def look_into(house: House, sources: Sequence[Source], *, whole: bool = False) -> list[Offered]:
    """What the sources offer, before anything is kept; `whole`: all that is in a file.

    Raises:
        MailboxError: `key-unusable`, with all that is wrong with any of them.
    """
    readings = house.key_reader.read([each.content for each in sources])
    found = [offered(source, reading) for source, reading in zip(sources, readings, strict=True)]
    refuse_unusable(found, whole=whole)
    return found


def from_user(house: House, fingerprints: Sequence[str]) -> list[Source]:
    """Keys of the user's own GnuPG, all at once.

    Raises:
        MailboxError: `key-not-found`.
    """
    found = house.user_keyring.publics(fingerprints)
    return [
        Source("Your GnuPG", found[each], fingerprint=each, trusted=True) for each in fingerprints
    ]


def from_domain(house: House, address: str, way: Way) -> Source:
    """The key that an address's domain publishes (Web Key Directory)."""
    house.progress.step(f"Looking for the key of {address}")
    shown, content = house.key_sources.web_key(address, way)
    return Source(shown, content, address=address)


def from_server(house: House, server: str, wanted: str, way: Way) -> Source:
    """What a key server has for an address or a fingerprint; the latter says all by itself."""
    house.progress.step(f"Asking {server} for {wanted}")
    shown, content = house.key_sources.key_server(server, wanted, way)
    if "@" in wanted:
        return Source(shown, content, address=wanted)
    return Source(shown, content, fingerprint=wanted, trusted=True)


def from_mail(shown: str, content: bytes) -> Source:
    """The keys that a mail carries for its sender.

    Raises:
        MailboxError: `key-unusable`.
    """
    from sandbox.model.mailkeys import keys_of_mail  # Python's parser of mails takes its time

    try:
        sender, keys = keys_of_mail(content)
    except ValueError as error:
        raise MailboxError(
            f"{shown} {error}; nothing was accepted.",
            details="In an encrypted mail only the header can be seen from outside.",
            resolution="Save the attached key to a file, and name that.",
            code="key-unusable",
            exit_code=Exit.KEYS,
        ) from None
    return Source(f"{shown}, a mail from {sender}", keys, address=sender)


def from_mail_on_server(house: House, name: str, message_id: str) -> Source:
    """The keys that a mail on the customer's server carries: this computer logs in and reads it."""
    profile = house.records.load(name)
    house.progress.step("Fetching the mail")
    password = secrets_of(house, profile, MAIL_PASSWORD)[MAIL_PASSWORD]
    account = profile.account
    authorities = "\n".join(account.ca) or None
    content = house.key_sources.fetch_mail(
        account.imap, account.login, password, authorities, message_id
    )
    return from_mail(message_id, content)


def plan_add(name: str, count: int) -> Plan:
    """The steps of `keys add`."""
    title = "Taking the key" if count == 1 else f"Taking {count} keys"
    take = Step("take", title, "the mailbox has a key ring of its own")
    return Plan("keys add", name, (take, WRITE))


def add(house: House, name: str, offers: Sequence[Offer]) -> Result:
    """Accept keys as correspondents'; all of them or none."""
    profile = house.records.load(name)
    with house.locked(profile.name, "keys add"):
        settle(house, profile.name)
        profile = house.records.load(name)
        without_own(offers, profile.keys.fingerprint)
        work = _Adding(house, profile, offers)
        run(
            plan_add(profile.name, len(offers)),
            {"take": work.take, "profile": work.write},
            house.journal(profile.name),
            house.progress,
            undo=lambda: None,
        )
    facts = {"accepted": [{**asdict(each.key), "from": each.shown} for each in offers]}
    return changed(house, "keys add", profile.name, _summary(offers), facts)


def _summary(offers: Sequence[Offer]) -> str:
    if len(offers) != 1:
        return f"{len(offers)} keys are accepted."
    accepted = offers[0].accepted()
    return f"{', '.join(accepted.addresses) or 'The key'} is accepted with {accepted.fingerprint}."


class _Adding:
    def __init__(self, house: House, profile: Profile, offers: Sequence[Offer]) -> None:
        self._house = house
        self._profile = profile
        self._offers = offers

    def take(self) -> dict[str, Any]:
        ring = self._house.profile_keyring(self._profile.name)
        ring.add_correspondents([each.public for each in self._offers])
        # Who the correspondents are is nothing that may outlive the profile.
        return {"count": len(self._offers)}

    def write(self) -> None:
        keys = self._profile.keys
        known = with_accepted(keys.correspondents, self._offers)
        self._house.records.save(replace(self._profile, keys=replace(keys, correspondents=known)))


def with_accepted(
    before: Sequence[Correspondent], offers: Sequence[Offer]
) -> tuple[Correspondent, ...]:
    """The correspondents with those accepted now; what is new comes last.

    A key that is accepted for one address stays accepted for those it was before.
    """
    known = {each.fingerprint: each for each in before}
    for offer in offers:
        new = offer.accepted()
        old = known.pop(new.fingerprint, None)
        if offer.address and old:
            addresses = tuple(dict.fromkeys((*old.addresses, *new.addresses)))
            new = replace(new, addresses=addresses)
        known[new.fingerprint] = new
    return tuple(known.values())
