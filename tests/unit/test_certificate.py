"""Certificates: what they say, in every language, and that no change goes unseen."""

from __future__ import annotations

import itertools
import json
import re
import string
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.cli.certificates import examine, render
from sandbox.lifecycle.certify import find_certificate, noted_digest
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.shred import shred
from sandbox.lifecycle.shredding import Order
from sandbox.model.contract import Contract
from sandbox.model.errors import MailboxError
from sandbox.model.inventory import Known, fates, inventory, open_rows, unknown_ids
from sandbox.report import words
from sandbox.report.canonical import canonical, read, seal
from sandbox.report.certificate import make_certificate
from sandbox.report.evidence import Evidence, gather
from sandbox.report.words import de, en
from tests.unit.fakes import ACCOUNT, NAME, OWN, World, make_house, make_wish

CONTRACT = Contract("Kunde GmbH, Köln", "Büro Łódź", "AV-Vertrag 17")
ORDER = Order("Vertragsende", "Frau Größe", ("provider-password",))


@pytest.fixture
def shredded(house: House) -> House:
    onboard(house, make_wish())
    house.records.save(replace(house.records.load(NAME), contract=CONTRACT))
    open_mailbox(house, NAME, headless=True)
    shred(house, NAME, ORDER)
    return house


@pytest.fixture
def document(shredded: House) -> dict[str, Any]:
    return find_certificate(shredded, NAME)


def entries(document: dict[str, Any], entry: str) -> list[dict[str, Any]]:
    return [e for s in document["sections"] for e in s["entries"] if e["id"] == entry]


def only(document: dict[str, Any], entry: str) -> dict[str, Any]:
    (found,) = entries(document, entry)
    return found


def test_it_has_every_part_in_order(document: dict[str, Any]) -> None:
    assert [section["id"] for section in document["sections"]] == list(en.SECTIONS)
    for entry in ("number", "tool", "began", "ended", "size", "created", "last_used", "cipher"):
        assert only(document, entry).get("code") != "unknown", entry
    assert document["number"].startswith("MB-")


def test_what_the_user_says_is_marked_so(document: dict[str, Any]) -> None:
    stated = {
        "controller": "Kunde GmbH, Köln",
        "processor": "Büro Łódź",
        "reference": "AV-Vertrag 17",
        "because": "Vertragsende",
        "ordered_by": "Frau Größe",
    }
    for entry, said in stated.items():
        assert only(document, entry) == {"id": entry, "source": "statement", "text": said}
    assert only(document, "provider-password")["code"] == "stated-gone"
    assert only(document, "provider-password")["source"] == "statement"
    sources = {e["source"] for s in document["sections"] for e in s["entries"]}
    assert sources == {"observation", "statement", "note"}


def test_what_nobody_stated_is_said(house: House) -> None:
    onboard(house, make_wish())
    shred(house, NAME)
    found = find_certificate(house, NAME)
    for entry in ("controller", "processor", "reference", "because", "ordered_by"):
        assert only(found, entry)["code"] == "not-stated"
        assert only(found, entry)["source"] == "statement"


def test_every_copy_has_its_fate(document: dict[str, Any]) -> None:
    copies = next(s for s in document["sections"] if s["id"] == "copies")["entries"]
    fate = {entry["id"]: entry["code"] for entry in copies}
    assert fate.pop("keyring:volume-key") == fate.pop("keyring:mail-password") == "deleted"
    assert fate.pop("keyring:openpgp-passphrase") == "deleted"
    assert fate == {
        "keyslots": "overwritten",
        "volume": "removed",
        "key-ring": "removed",
        "revocation": "removed",
        "recovery-code": "open-unseen",
        "own-gnupg": "open-seen",
        "provider-mail": "open-unseen",
        "provider-password": "stated-gone",
        "backup:Timeshift": "open-unseen",
    }


def test_what_was_tried_came_back_with_nothing(document: dict[str, Any]) -> None:
    tried = {
        "tried-keyring": "nothing",
        "tried-header": "read-back",
        "tried-key": "key-refused",
        "tried-volume": "no-file",
        "journal": "chain-whole",
        "found": "nothing-found",
        "machine": "machine-gone",
        "saved_state": "no-saved-state",
    }
    assert {entry: only(document, entry)["code"] for entry in tried} == tried
    assert not entries(document, "exception")


def test_it_names_no_address(document: dict[str, Any]) -> None:
    text = canonical(document).decode()
    for word in (ACCOUNT.address, ACCOUNT.display_name, "kunde.test"):
        assert word not in text


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_it_promises_nothing(document: dict[str, Any], language: str) -> None:
    text = render(document, "text", language).decode().lower()
    said = " ".join([text, *map(str.lower, map(str, vars(en).values())), str(vars(de)).lower()])
    for word in ("unrecoverable", "irreversib", "unwiederbringlich", "unwiderruflich", "guarantee"):
        assert word not in said
    for word in ("garantier", "impossible", "unmöglich", "endgültig"):
        assert word not in said


def test_languages_have_the_same_words() -> None:
    for table in ("SECTIONS", "LABELS", "SAYS", "SOURCES"):
        one, other = getattr(en, table), getattr(de, table)
        assert set(one) == set(other), table
        for key in one:
            assert _fields(one[key]) == _fields(other[key]), f"{table} {key}"
    assert len(en.VALIDATION) == len(de.VALIDATION)


def _fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def everything() -> list[Evidence]:
    """Evidence of every kind: all values that decide what is said, each with each other."""
    base = {"tool": "mailbox 0", "created": "2026-01-01", "order": {"override": "a court"}}
    made = []
    kinds = ("rotating", "flash", "virtual", "unknown")
    swaps = ("none", "encrypted", "plain", "unknown")
    below = ("encrypted", "plain", "memory", "unknown")
    for index, answer in enumerate((None, True, False)):
        for kind, swap, under in zip(kinds, swaps, below, strict=True):
            known = Known(
                "v",
                2,
                key_ring=True,
                header_backup="h",
                suspended="s",
                pictures=("p",),
                revocations=("A" * 40,),
                revocations_saved=("/media/stick/a.rev",),
                own_key=OWN,
            )
            rows = fates(inventory(replace(known, own_key_here=True)), ())
            rows += fates(inventory(Known()), ("provider-mail",))
            medium = {"disks": [{"name": "sda", "kind": kind}], "swap": swap, "encryption": under}
            found = [{"path": "/x", "kind": k} for k in ("profile id", "address", "login")]
            look = {
                "identifiers": ["profile id", "machine", "volume id", "address", "login"][index:],
                "keyring_left": ["volume-key"] if answer else [],
                "volume_left": answer,
                "key_ring_left": answer,
                "volume_served": answer,
                "saved_left": answer,
                "machine": "closed" if answer else "open",
                "found": found if answer else [],
            }
            steps = {
                "keyring": {"opened_before": answer},
                "header": {"erased": answer, "opened_after": answer, "backup_erased": answer},
                "volume": {"there": answer, "discarded": answer},
                "keys": {"there": answer},
                "leftovers": {"pictures_changed": int(bool(answer))},
            }
            if answer is not None:
                steps["look"] = look
            volume = {
                "there": answer,
                "volume_id": "" if index == 1 else "u",
                "size": 1,
                "allocated": 1,
            }
            made.append(
                Evidence(
                    name="a",
                    profile_id="0" * 36,
                    case=base | {"copies": rows, "medium": medium, "volume": volume},
                    steps=steps,
                    began="2026-01-02T00:00:00",
                    ended="2026-01-02T00:00:01",
                    runs=index + 1,
                    broken_at=3 if answer else None,
                    retentions=({"since": "2026", "until": "2027", "because": "tax"},),
                )
            )
    return made


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_everything_that_can_be_said_has_words(language: str) -> None:
    module = {"de": de, "en": en}[language]
    for evidence in everything():
        document = make_certificate(evidence)
        for entry in itertools.chain.from_iterable(s["entries"] for s in document["sections"]):
            if "code" in entry:
                assert entry["code"] in module.SAYS, entry
            kind = entry["id"].partition(":")[0]
            assert kind in module.LABELS, entry
            assert "?" not in words.says(entry, language), entry
        assert render(document, "text", language)


def test_what_went_wrong_is_said_with_its_date() -> None:
    codes = {
        entry["code"]
        for evidence in everything()
        for entry in entries(make_certificate(evidence), "exception")
    }
    assert codes == {
        *("volume-was-missing", "header-was-damaged", "retained", "overridden", "interrupted"),
        *("chain-broken", "address-unknown"),
    }


def test_an_absent_case_makes_a_certificate_too() -> None:
    document = make_certificate(Evidence("a", "0" * 36, {}, {}))
    assert only(document, "volume")["code"] == "unknown"
    assert "not done" in render(document, "text", "en").decode()


# Changes


@dataclass(frozen=True)
class Note:
    """An entry of a journal."""

    verb: str
    event: str
    step: str = ""
    facts: Any = None
    time: str = "2026-01-01T00:00:00"
    run: str = "1"


def test_the_runs_of_a_shredding_are_one_evidence() -> None:
    mine, other = {"profile_id": "1"}, {"profile_id": "2"}
    notes = [
        Note("onboard", "begin", facts=other),
        Note("open", "end", time="1999"),
        Note("shred", "begin", facts=other),
        Note("shred", "done", "keyring", {"volume-key": False}),
        Note("onboard", "begin", facts=mine),
        Note("open", "end", time="2020"),
        Note("shred", "begin", facts=mine, time="2021"),
        Note("shred", "done", "keyring", {"volume-key": True, "opened_before": True}),
        Note("shred", "done", "look", {"identifiers": [1, 2], "files": 7}),
        Note("shred", "begin", facts=mine, time="2022"),
        Note("shred", "done", "keyring", {"volume-key": False, "opened_before": None}),
        Note("shred", "done", "look", {"identifiers": [1], "files": 8}),
        Note("shred", "done", "profile", time="2023"),
        Note("shred", "done", "certificate", time="2024"),
    ]
    evidence = gather("a", "1", {}, notes, None)
    assert evidence.steps["keyring"] == {"volume-key": True, "opened_before": True}
    assert evidence.steps["look"]["files"] == 7
    assert (evidence.began, evidence.ended, evidence.last_used) == ("2021", "2023", "2020")
    assert evidence.runs == 2


def test_any_changed_byte_is_found(document: dict[str, Any]) -> None:
    content = canonical(document)
    assert read(content) == document
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1
        with pytest.raises(ValueError):
            read(bytes(changed))
    for other in (content + b" ", content[:-1], json.dumps(document).encode(), b"", b"[]", b"{}"):
        with pytest.raises(ValueError):
            read(other)


def test_what_has_more_than_one_form_is_not_sealed() -> None:
    with pytest.raises(ValueError):
        seal({"a": [{"b": 1.5}]})


def test_a_certificate_that_was_made_anew_is_not_the_one_noted(
    shredded: House, document: dict[str, Any]
) -> None:
    assert noted_digest(shredded, document) is True
    forged = json.loads(canonical(document))
    forged["sections"][1]["entries"][0]["text"] = "Someone else"
    assert noted_digest(shredded, seal(forged)) is False
    assert noted_digest(shredded, seal(forged | {"number": "MB-0"})) is None


def test_made_anew_it_is_the_same(shredded: House, document: dict[str, Any]) -> None:
    for path in shredded.paths.certificates.iterdir():
        path.unlink()
    assert find_certificate(shredded, NAME) == document


def test_a_changed_one_on_record_is_refused(shredded: House, world: World) -> None:
    (path,) = shredded.paths.certificates.iterdir()
    path.write_bytes(path.read_bytes().replace(b"Vertragsende", b"Vertragsbruch"))
    with pytest.raises(MailboxError) as refused:
        find_certificate(make_house(world), NAME)
    assert refused.value.code == "certificate-changed"


def test_of_several_of_a_name_each_is_found(shredded: House) -> None:
    first = shredded.records.tombstones.all(NAME)[0].profile_id
    onboard(shredded, make_wish(reuse_name=True))
    shred(shredded, NAME, Order("again"))
    assert only(find_certificate(shredded, NAME), "because")["text"] == "again"
    assert only(find_certificate(shredded, NAME, first[:8]), "because")["text"] == "Vertragsende"
    with pytest.raises(MailboxError):
        find_certificate(shredded, NAME, "ffffffff-none")


def test_a_volume_deleted_by_hand_is_an_exception(house: House) -> None:
    onboard(house, make_wish())
    house.paths.volume(NAME).unlink()
    shred(house, NAME)
    document = find_certificate(house, NAME)
    assert only(document, "exception")["code"] == "volume-was-missing"
    assert only(document, "volume-elsewhere")["code"] == "open-unseen"
    assert only(document, "tried-key")["code"] == "key-not-tried"


# Pages


def test_the_pdf_carries_the_data_and_any_change_is_found(document: dict[str, Any]) -> None:
    pytest.importorskip("fpdf")
    for language in words.LANGUAGES:
        content = render(document, "pdf", language)
        assert content == render(document, "pdf", language)
        facts = examine(content, None, lambda _document: None)
        assert (facts["content"], facts["digest"]) == ("whole", document["digest"])
        changed = bytearray(content)
        changed[content.index(b"stream") + 40] ^= 1
        assert examine(bytes(changed), None, lambda _d: None)["content"] != "whole"
        assert examine(content + b"%", None, lambda _d: None)["content"] != "whole"


def test_the_pdf_prints_every_letter(document: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("fpdf")
    path = tmp_path / "a.pdf"
    path.write_bytes(render(document, "pdf", "de"))
    try:
        done = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("pdftotext is not installed")
    text = done.stdout.decode()
    for words_ in ("Kunde GmbH, Köln", "Büro Łódź", "Frau Größe", "Unterschrift", "Was übrig"):
        assert words_ in text
    assert re.search(r"Seite 1 von \d", text)


# Inventory


def test_only_what_is_beyond_us_can_be_confirmed() -> None:
    rows = inventory(Known("v", 1, key_ring=True, own_key=OWN, own_key_here=True))
    assert unknown_ids(rows, ("own-gnupg", "volume", "nonsense")) == ["volume", "nonsense"]
    kept = fates(rows, ("own-gnupg", "volume"))
    assert open_rows(kept) == ["provider-mail", "provider-password"]
    assert not any(row["stated_gone"] for row in kept if row["destroys"])


def test_without_a_second_keyslot_there_is_no_code_on_paper() -> None:
    assert "recovery-code" not in {row.id for row in inventory(Known("v", 1))}
    assert "recovery-code" in {row.id for row in inventory(Known("v", 2))}
