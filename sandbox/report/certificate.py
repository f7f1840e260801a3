"""The certificate of a shredding: what was observed, and what its user states; never a promise.

A document of sections; each entry is an `observation`, a `statement` or an
explaining `note`, and has either a `text` as
it was found or a `code` with `values`, which sandbox/report/words puts into a language.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.report import findings
from sandbox.report.canonical import seal
from sandbox.report.entries import NOTE, Section, coded, stated, text
from sandbox.report.evidence import Evidence

FORMAT = "mailbox-certificate"
VERSION = 1


def make_certificate(evidence: Evidence) -> dict[str, Any]:
    """The sealed certificate; the same evidence makes the same certificate."""
    return seal(
        {
            "format": FORMAT,
            "version": VERSION,
            "number": number(evidence),
            "issued": evidence.ended,
            "sections": [section.document() for section in _sections(evidence)],
        }
    )


def number(evidence: Evidence) -> str:
    """The certificate's number: the day, and the beginning of the profile's id."""
    return f"MB-{evidence.ended[:10].replace('-', '')}-{evidence.profile_id[:8]}"


def _sections(evidence: Evidence) -> list[Section]:
    return [
        _about(evidence),
        _parties(evidence),
        _order(evidence),
        _scope(evidence),
        _medium(evidence),
        _method(evidence),
        Section("copies", tuple(findings.copies(evidence))),
        Section("volatile", tuple(findings.volatile(evidence))),
        Section("search", tuple(findings.search(evidence))),
        Section("verification", tuple(findings.verification(evidence))),
        Section("exceptions", tuple(findings.exceptions(evidence))),
        Section("risk", tuple(findings.risks(evidence))),
        # What was tried is above; whether that is enough is for a person to say.
        Section("validation", ()),
    ]


def _about(evidence: Evidence) -> Section:
    return Section(
        "about",
        (
            text("number", number(evidence)),
            text("began", evidence.began),
            text("ended", evidence.ended),
            text("tool", str(evidence.case.get("tool", ""))),
            text("mailbox", evidence.name),
            text("profile", evidence.profile_id),
        ),
    )


def _parties(evidence: Evidence) -> Section:
    contract = _table(evidence.case, "contract")
    rows = ("controller", "processor", "reference")
    return Section("parties", tuple(stated(row, contract.get(row)) for row in rows))


def _order(evidence: Evidence) -> Section:
    order = _table(evidence.case, "order")
    return Section("order", tuple(stated(row, order.get(row)) for row in ("because", "ordered_by")))


def _scope(evidence: Evidence) -> Section:
    volume = _table(evidence.case, "volume")
    created = str(evidence.case.get("created", ""))
    entries = [text("volume", volume.get("volume_id"))]
    if "size" in volume:
        sizes = {"size": volume["size"], "allocated": volume["allocated"]}
        entries.append(coded("size", "sizes", **sizes))
    used = evidence.last_used
    entries.append(text("created", created))
    entries.append(text("last_used", used) if used else coded("last_used", "never-opened"))
    entries.append(coded("categories", "mail-categories", NOTE))
    period = {"first": created[:10], "last": (evidence.last_used or created)[:10]}
    entries.append(coded("period", "period", **period))
    return Section("scope", tuple(entries))


def _medium(evidence: Evidence) -> Section:
    medium = _table(evidence.case, "medium")
    entries = [text("file_system", medium.get("file_system"))]
    entries.append(coded("below", f"below-{medium.get('encryption', 'unknown')}"))
    for disk in medium.get("disks", []):
        model, serial = disk.get("model") or "-", disk.get("serial") or "-"
        values = {"name": disk.get("name", "-"), "model": model, "serial": serial}
        entries.append(coded("disk", f"disk-{disk.get('kind', 'unknown')}", **values))
    if not medium.get("disks"):
        entries.append(coded("disk", "unknown"))
    return Section("medium", tuple(entries))


def _method(evidence: Evidence) -> Section:
    volume = _table(evidence.case, "volume")
    bits = volume.get("key_bits")
    return Section(
        "method",
        (
            coded("method", "erase-and-remove"),
            text("cipher", volume.get("cipher")),
            coded("key_length", "bits", bits=bits) if bits else coded("key_length", "unknown"),
            coded("key_levels", "key-levels", NOTE),
        ),
    )


def _table(case: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = case.get(key)
    return value if isinstance(value, Mapping) else {}
