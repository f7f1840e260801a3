"""The parts of a certificate that say what became of each thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.report.entries import NOTE, STATEMENT, Entry, coded, text
from sandbox.report.evidence import Evidence

_MOST_FOUND = 20


def _step(evidence: Evidence, name: str) -> Mapping[str, Any]:
    return evidence.steps.get(name, {})


def _copies(evidence: Evidence) -> list[Mapping[str, Any]]:
    rows = evidence.case.get("copies")
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def copies(evidence: Evidence) -> Iterator[Entry]:
    """The fate of each known copy of a key or of data."""
    for row in _copies(evidence):
        name, where = str(row.get("id", "")), row.get("where", "")
        if row.get("destroys"):
            yield coded(name, _fate(evidence, name), where=where)
        elif row.get("stated_gone"):
            yield coded(name, "stated-gone", STATEMENT, where=where)
        else:
            seen = row.get("seen")
            yield coded(name, "open-seen" if seen else "open-unseen", where=where)


def _fate(evidence: Evidence, name: str) -> str:
    kind, _, item = name.partition(":")
    look = _step(evidence, "look")
    if kind == "keyring":
        if item in look.get("keyring_left", []):
            return "still-there"
        return "deleted" if _step(evidence, "keyring").get(item) else "was-gone"
    if kind == "keyslots":
        return "overwritten" if _step(evidence, "header").get("erased") else "was-gone"
    if kind == "header-backup":
        return (
            "overwritten-removed" if _step(evidence, "header").get("backup_erased") else "was-gone"
        )
    if kind == "volume":
        if look.get("volume_left"):
            return "still-there"
        return "removed" if _step(evidence, "volume").get("there") else "was-gone"
    if kind == "suspended":
        return "still-there" if look.get("saved_left") else "removed"
    if kind in ("key-ring", "revocation"):  # they lie in it
        if look.get("key_ring_left"):
            return "still-there"
        return "removed" if _step(evidence, "keys").get("there") else "was-gone"
    if kind == "smime":
        return "still-there" if look.get("smime_left") else "removed"
    left = _step(evidence, "leftovers").get("pictures_changed")
    return "changed-left" if left else "removed"


def volatile(evidence: Evidence) -> Iterator[Entry]:
    """Copies in memory and what could have been written of it."""
    look = _step(evidence, "look")
    machine = look.get("machine")
    yield coded("machine", "machine-gone" if machine == "closed" else "unknown")
    served = look.get("volume_served")
    known = "still-there" if served else "none"
    yield coded("volume_served", "unknown" if served is None else known)
    saved = look.get("saved_left")
    kept = "still-there" if saved else "no-saved-state"
    yield coded("saved_state", "unknown" if saved is None else kept)
    medium = evidence.case.get("medium")
    swap = medium.get("swap", "unknown") if isinstance(medium, Mapping) else "unknown"
    yield coded("swap", f"swap-{swap}")


def search(evidence: Evidence) -> Iterator[Entry]:
    """Where was looked, for what, with which result."""
    look = _step(evidence, "look")
    if not look:
        yield coded("places", "not-done")
        return
    for kind in look.get("identifiers", []):
        yield coded("sought", f"sought-{str(kind).replace(' ', '-')}")
    for folder in look.get("folders", []):
        yield text("place", folder)
    counted = {"files": look.get("files", 0), "unread": look.get("unread", 0)}
    yield coded("searched", "searched", **counted)
    found = look.get("found", [])
    if not found:
        yield coded("found", "nothing-found")
    for each in found[:_MOST_FOUND]:
        kind = f"sought-{str(each.get('kind', '')).replace(' ', '-')}"
        yield coded("found", "found-in", path=each.get("path", ""), kind=kind)


def verification(evidence: Evidence) -> Iterator[Entry]:
    """What was tried after the destruction, and what came back."""
    look, header = _step(evidence, "look"), _step(evidence, "header")
    left = look.get("keyring_left")
    yield coded("tried-keyring", "not-done" if left is None else "came-back" if left else "nothing")
    erased = "read-back" if header.get("erased") else "no-volume"
    yield coded("tried-header", erased)
    yield coded("tried-key", _old_key(evidence))
    gone = look.get("volume_left")
    yield coded("tried-volume", "not-done" if gone is None else "came-back" if gone else "no-file")
    discarded = _step(evidence, "volume").get("discarded")
    given = "discarded" if discarded else "not-discarded"
    yield coded("tried-discard", "not-done" if discarded is None else given)
    broken = evidence.broken_at
    yield coded("journal", "chain-broken" if broken else "chain-whole", line=broken or 0)


def _old_key(evidence: Evidence) -> str:
    before = _step(evidence, "keyring").get("opened_before")
    after = _step(evidence, "header").get("opened_after")
    if after is None:
        return "key-not-tried"
    if after:
        return "key-opens"
    return "key-refused" if before else "key-refused-no-control"


def exceptions(evidence: Evidence) -> Iterator[Entry]:
    """What was not as it should be, each with its date."""
    volume = evidence.case.get("volume")
    if isinstance(volume, Mapping) and not volume.get("there"):
        yield coded("exception", "volume-was-missing", date=evidence.began)
    elif isinstance(volume, Mapping) and not volume.get("volume_id"):
        yield coded("exception", "header-was-damaged", date=evidence.began)
    for kept in evidence.retentions:
        values = {"date": kept.get("since", ""), "until": kept.get("until", "")}
        yield coded("exception", "retained", STATEMENT, because=kept.get("because", ""), **values)
    order = evidence.case.get("order")
    override = order.get("override") if isinstance(order, Mapping) else ""
    if override:
        yield coded(
            "exception", "overridden", STATEMENT, date=evidence.began, because=str(override)
        )
    if evidence.runs > 1:
        yield coded("exception", "interrupted", runs=evidence.runs, date=evidence.ended)
    if evidence.broken_at:
        yield coded("exception", "chain-broken", line=evidence.broken_at, date=evidence.ended)
    if "address" not in _step(evidence, "look").get("identifiers", []):
        yield coded("exception", "address-unknown", date=evidence.ended)


def risks(evidence: Evidence) -> Iterator[Entry]:
    """What can remain, in plain words."""
    medium = evidence.case.get("medium")
    disks = medium.get("disks", []) if isinstance(medium, Mapping) else []
    kinds = {str(disk.get("kind")) for disk in disks} or {"unknown"}
    if kinds != {"rotating"}:
        yield coded("remains", "risk-flash", NOTE)
    yield coded("remains", "risk-removed", NOTE)
    yield coded("remains", "risk-copies", NOTE)
    yield coded("remains", "risk-provider", NOTE)
    if any(not row.get("destroys") and not row.get("stated_gone") for row in _copies(evidence)):
        yield coded("remains", "risk-open", NOTE)
    yield coded("remains", "risk-records", NOTE)
