"""`keys add`: correspondents' keys, read and judged first, then taken into ring and profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.keys import WRITE, changed
from sandbox.lifecycle.settle import settle
from sandbox.model.offers import Offer, Offered, Source, offered, without_own
from sandbox.model.profile import Correspondent, Profile


def look_into(house: House, sources: Sequence[Source]) -> list[Offered]:
    """What the sources offer, before anything is kept.

    Raises:
        MailboxError: `key-unusable` when one of them has nothing usable.
    """
    readings = house.key_reader.read([each.content for each in sources])
    return [offered(source, reading) for source, reading in zip(sources, readings, strict=True)]


def from_user(house: House, fingerprints: Sequence[str]) -> list[Source]:
    """Keys of the user's own GnuPG, all at once.

    Raises:
        MailboxError: `key-not-found`.
    """
    found = house.user_keyring.publics(fingerprints)
    return [Source("Your GnuPG", found[each], trusted=True) for each in fingerprints]


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
        return {"fingerprints": [each.key.fingerprint for each in self._offers]}

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
