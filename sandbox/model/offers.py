"""Keys that are offered as a correspondent's: what is usable, what was meant, what is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keys import Key, day_of, key_problem
from sandbox.model.openpgp import Correspondent


@dataclass(frozen=True)
class ReadKey:
    """A key as GnuPG read and verified it, and its public part, armored."""

    key: Key
    public: str = field(repr=False)


@dataclass(frozen=True)
class Reading:
    """What one source holds: keys, and why others of it (or all of it) are none."""

    keys: tuple[ReadKey, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Way:
    """How servers of keys are reached: authorities (PEM; None: the system's), and detours."""

    ca: str | None = None
    detours: Mapping[tuple[str, int], tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where keys come from; `shown` is the place for people.

    `address` or `fingerprint` is what was looked for, and all else in the content is refused.
    `trusted`: the user named a key, or a file of keys, so nothing has to be confirmed.
    """

    shown: str
    content: bytes = field(repr=False)
    address: str = ""
    fingerprint: str = ""
    trusted: bool = False

    @property
    def is_file(self) -> bool:
        """Whether all that is in it is meant."""
        return self.trusted and not (self.address or self.fingerprint)


@dataclass(frozen=True)
class Offer:
    """A usable key; one that was looked for by an address is accepted for that address only."""

    key: Key
    public: str = field(repr=False)
    shown: str
    address: str = ""

    def accepted(self) -> Correspondent:
        """How the profile writes it down."""
        addresses = (self.address,) if self.address else self.key.addresses
        return Correspondent(self.key.fingerprint, addresses, day_of(self.key.expires))


@dataclass(frozen=True)
class Offered:
    """What is usable of one source, and why the rest of it is not."""

    source: Source
    offers: tuple[Offer, ...]
    problems: tuple[str, ...]

    def only(self, fingerprints: Sequence[str]) -> Offered:
        """What is left of it when the user names fingerprints; without any, all."""
        wanted = (each for each in self.offers if each.key.fingerprint in fingerprints)
        return replace(self, offers=tuple(wanted)) if fingerprints else self


def offered(source: Source, reading: Reading) -> Offered:
    """Tell usable keys from others; there may be none."""
    reasons = {each.key.fingerprint: offer_problem(each.key, source) for each in reading.keys}
    problems = [f"{print_} {reason}" for print_, reason in reasons.items() if reason]
    problems += reading.problems
    usable = tuple(
        Offer(each.key, each.public, source.shown, source.address.lower())
        for each in reading.keys
        if not reasons[each.key.fingerprint]
    )
    if not (usable or problems):
        problems = ["holds no OpenPGP key"]
    return Offered(source, usable, tuple(problems))


def offer_problem(key: Key, source: Source) -> str | None:
    """Why a key cannot be a correspondent's, or not the one that was meant; None: it can."""
    if source.fingerprint and key.fingerprint != source.fingerprint:
        return "is another key than the one that was asked for"
    address = source.address.lower()
    if address and address not in key.addresses:
        return f"has no valid user id with {address}"
    return key_problem(key, own=False)


def refuse_unusable(found: Sequence[Offered], *, whole: bool = False) -> None:
    """Refuse sources without a usable key; with `whole`, files of which one key is unusable.

    Raises:
        MailboxError: `key-unusable`, with every reason of every one of them.
    """
    bad = [each for each in found if not each.offers or (whole and each.source.is_file)]
    first, *more = [f"{each.source.shown}: {p}" for each in bad for p in each.problems] or [""]
    if not first:
        return
    leave = " `mailbox keys add --all` takes those that can be used, without the others."
    raise MailboxError(
        f"{first}; nothing was accepted.",
        details="\n".join(more),
        resolution="Ask the correspondent for a key that can be used."
        + (leave if any(each.offers for each in found) else ""),
        code="key-unusable",
        exit_code=Exit.KEYS,
    )


def without_own(offers: Sequence[Offer], own: str | None) -> None:
    """Refuse the mailbox's own key.

    Raises:
        MailboxError: `key-unusable`.
    """
    if own and own in {each.key.fingerprint for each in offers}:
        raise MailboxError(
            f"{own} is the mailbox's own key; nothing was changed.",
            code="key-unusable",
            exit_code=Exit.KEYS,
        )


def several(found: Offered) -> MailboxError:
    """The error of a source with more keys than were meant."""
    usable = [f"{each.key.fingerprint} {one_uid(each.key)}" for each in found.offers]
    count = len(found.offers) + len(found.problems)
    return MailboxError(
        f"{found.source.shown} holds {count} keys; nothing was accepted.",
        details="\n".join((*usable, *found.problems)),
        resolution="Say with --fingerprint which you mean, or --yes for all that can be used.",
        code="several-keys",
        exit_code=Exit.KEYS,
    )


def not_among(missing: Sequence[str], found: Sequence[Offer]) -> MailboxError:
    """The error of fingerprints that were named and not found: somebody else's key, perhaps."""
    listed = "\n".join(f"{each.key.fingerprint} {one_uid(each.key)}" for each in found)
    return MailboxError(
        f"The key {', '.join(missing)} was not found; nothing was accepted.",
        details=f"Found was:\n{listed}" if listed else "",
        resolution="Compare with the correspondent by another way than mail: this may be "
        "somebody else's key.",
        code="fingerprint-mismatch",
        exit_code=Exit.KEYS,
    )


def one_uid(key: Key) -> str:
    """A user id to show, safe to print: a stranger wrote it."""
    text = key.user_ids[0] if key.user_ids else "(no user id)"
    return "".join(char if char.isprintable() else "?" for char in text[:200])
