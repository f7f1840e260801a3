"""Certificates of shredded mailboxes: written by `shred`, found again, made anew, checked."""

from __future__ import annotations

import uuid
from typing import Any

from sandbox.lifecycle.house import House
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.names import name_problem
from sandbox.report.canonical import canonical, read
from sandbox.report.certificate import FORMAT, make_certificate
from sandbox.report.evidence import gather
from sandbox.state import files
from sandbox.state.tombstones import Tombstone


def write_certificate(house: House, name: str, profile_id: uuid.UUID) -> dict[str, Any]:
    """Write the certificate of a shredding that is done; one that is there stays as it is."""
    path = house.paths.certificate(name, str(profile_id))
    files.remove_unfinished(path)
    stone = house.records.tombstones.of(str(profile_id))
    if stone is None:
        return {}
    if not path.exists():
        files.replace(path, canonical(_make(house, name, stone)))
    document = _read_kept(house, name, stone)
    return {"number": document["number"], "digest": document["digest"]}


def find_certificate(house: House, name: str, profile_id: str | None = None) -> dict[str, Any]:
    """The certificate of a shredded mailbox; of several of that name the newest.

    Raises:
        MailboxError: `not-shredded`, `certificate-unknown`, `certificate-changed`.
    """
    problem = name_problem(name)
    if problem:
        raise InvalidInputError("The name", [problem])
    stones = house.records.tombstones.all(name)
    chosen = [s for s in stones if profile_id is None or s.profile_id.startswith(profile_id)]
    if not chosen:
        raise _none(house, name, profile_id)
    return _read_kept(house, chosen[-1].name, chosen[-1])


def _read_kept(house: House, name: str, stone: Tombstone) -> dict[str, Any]:
    path = house.paths.certificate(name, stone.profile_id)
    if not path.exists():
        # The same evidence makes the same certificate.
        return _make(house, name, stone)
    try:
        with files.readable_errors(path):
            return read(path.read_bytes())
    except ValueError as error:
        raise MailboxError(
            f"The certificate {path} was changed: {error}.",
            resolution="Move it away; the next call makes it anew from the journal.",
            code="certificate-changed",
            exit_code=Exit.DAMAGED,
        ) from None


def _make(house: House, name: str, stone: Tombstone) -> dict[str, Any]:
    history = house.journal(name).read()
    evidence = gather(name, stone.profile_id, stone.case, history.entries, history.broken_at)
    if not evidence.ended or "volume" not in evidence.steps:
        raise MailboxError(
            f"The journal does not say how {name} was shredded, so there is no certificate.",
            resolution=f"`mailbox log {name}` shows what it says.",
            code="certificate-unknown",
            exit_code=Exit.NOT_FOUND,
        )
    return make_certificate(evidence)


def noted_digest(house: House, document: dict[str, Any]) -> bool | None:
    """Whether the journal here noted this digest; None when no journal knows the number."""
    known = None
    for path in sorted(house.paths.journals.glob("*.jsonl")):
        for entry in house.journal(path.stem).read().entries:
            if entry.step == "certificate" and entry.fact("number") == document.get("number"):
                known = bool(known) or entry.fact("digest") == document.get("digest")
    return known


def is_certificate(document: dict[str, Any]) -> bool:
    """Whether a sealed document is one of ours."""
    return document.get("format") == FORMAT and isinstance(document.get("sections"), list)


def _none(house: House, name: str, profile_id: str | None) -> MailboxError:
    if profile_id is None and house.records.find(name):
        return MailboxError(
            f"{name} is not shredded, so there is no certificate.",
            resolution=f"`mailbox shred {name}` ends with one.",
            code="not-shredded",
            exit_code=Exit.NOT_FOUND,
        )
    return MailboxError(
        f"No shredded mailbox is known by the name {name!r}"
        + (f" and the id {profile_id}." if profile_id else "."),
        code="certificate-unknown",
        exit_code=Exit.NOT_FOUND,
    )
