"""The mailbox's S/MIME certificate: taken, replaced, sent, listed, dropped, destroyed."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandbox.lifecycle import preview, smime
from sandbox.lifecycle.case import take_inventory
from sandbox.lifecycle.house import House
from sandbox.lifecycle.keys import list_keys, warn_of_keys
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.recover import Means, recover
from sandbox.lifecycle.shred import shred
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.openpgp import Correspondent
from sandbox.model.profile import read_profile, write_profile
from sandbox.model.secrets import SMIME_PASSPHRASE
from sandbox.model.smime import CertificateFacts, certificate_lacks, certificate_problem
from tests.unit.fakes import BERT, NAME, PASSWORD, SETTINGS, World, make_wish

ADDRESS = "anna@kunde.test"
ONE, TWO = "1" * 64, "2" * 64
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def certificate(
    fingerprint: str = ONE, address: str = ADDRESS, passphrase: str = "", said: str = ""
) -> smime.NewCertificate:
    content = f"p12 {fingerprint} {address} {passphrase}".rstrip().encode()
    return smime.NewCertificate(content, lambda _: said, ("-----BEGIN CERTIFICATE-----",))


def item(house: House, world: World) -> str | None:
    found: str | None = world.state["vault"].get(
        f"{house.records.load(NAME).id}/{SMIME_PASSPHRASE}"
    )
    return found


def kept(house: House) -> list[str]:
    folder = house.paths.smime(NAME)
    return [path.stem for path in folder.iterdir()] if folder.exists() else []


def code(action: object) -> str:
    with pytest.raises(MailboxError) as refused:
        action()  # type: ignore[operator]
    return refused.value.code


def test_it_is_kept_locked_and_sent_at_open(house: House, world: World) -> None:
    onboard(house, make_wish())
    result = smime.take(house, NAME, certificate(passphrase="old", said="old"))
    assert result.facts["fingerprint"] == ONE and kept(house) == [ONE]
    file = house.paths.certificate_file(NAME, ONE)
    assert file.stat().st_mode & 0o077 == 0 and b" old" not in file.read_bytes()
    open_mailbox(house, NAME, headless=True)
    sent = world.desired[-1]["smime"]
    assert (sent["fingerprint"], sent["passphrase"]) == (ONE, item(house, world))
    assert sent["ca"] == ["-----BEGIN CERTIFICATE-----"]


def test_another_takes_its_place(house: House, world: World) -> None:
    onboard(house, make_wish())
    smime.take(house, NAME, certificate(ONE))
    smime.take(house, NAME, certificate(TWO))
    assert kept(house) == [TWO]
    rows = [(each.role, each.fingerprint) for each in list_keys(house, NAME)]
    assert rows[-1] == ("smime", TWO) and len(rows) == 3


def test_it_is_removed_without_a_trace(house: House, world: World) -> None:
    onboard(house, make_wish())
    assert smime.remove(house, NAME).facts == {"removed": False}
    smime.take(house, NAME, certificate())
    assert smime.remove(house, NAME).facts["removed"] is True
    assert kept(house) == [] and item(house, world) is None
    open_mailbox(house, NAME, headless=True)
    assert world.desired[-1]["smime"] is None


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (smime.NewCertificate(b"junk", lambda _: ""), "smime-unusable"),
        (certificate(address="bert@kunde.test"), "smime-unusable"),
        (certificate(passphrase="old", said="wrong"), "smime-passphrase-wrong"),
    ],
)
def test_what_cannot_serve_changes_nothing(
    house: House, world: World, new: smime.NewCertificate, expected: str
) -> None:
    onboard(house, make_wish())
    smime.take(house, NAME, certificate(TWO))
    before = item(house, world)
    assert code(lambda: smime.take(house, NAME, new)) == expected
    assert kept(house) == [TWO] and item(house, world) == before
    assert house.records.load(NAME).smime is not None


@pytest.mark.parametrize("effect", ["vault.put smime-passphrase", "vault.check"])
def test_a_failure_leaves_nothing(house: House, world: World, effect: str) -> None:
    onboard(house, make_wish())
    world.faults[effect] = MailboxError("Failed.", code="x")
    assert code(lambda: smime.take(house, NAME, certificate())) == "x"
    assert kept(house) == [] and item(house, world) is None


def test_a_missing_file_is_said_at_open(house: House) -> None:
    onboard(house, make_wish())
    smime.take(house, NAME, certificate())
    house.paths.certificate_file(NAME, ONE).unlink()
    assert list_keys(house, NAME)[-1].problem == "is not on this computer"
    assert code(lambda: open_mailbox(house, NAME, headless=True)) == "smime-missing"


def test_its_end_is_warned_of(house: House, world: World) -> None:
    onboard(house, make_wish())
    world.expiries[ONE] = int(time.time()) + 10 * 24 * 3600
    smime.take(house, NAME, certificate())
    world.warned.clear()
    warn_of_keys(house, list_keys(house, NAME))
    (warned,) = world.warned
    assert warned.startswith(f"The mailbox's S/MIME certificate: {ONE} expires on ")


def test_shred_knows_and_destroys_it(house: House, world: World) -> None:
    onboard(house, make_wish())
    smime.take(house, NAME, certificate())
    ids = [row.id for row in take_inventory(house, NAME) if row.destroys]
    assert {"smime", "keyring:smime-passphrase"} <= set(ids)
    shred(house, NAME)
    assert kept(house) == [] and world.state["vault"] == {}


def test_what_would_be_done_is_shown(house: House) -> None:
    onboard(house, make_wish())

    def steps(new: smime.NewCertificate | None) -> list[str]:
        return [step.id for step in preview.changing_certificate(house, NAME, new).steps]

    assert steps(certificate()) == ["secret", "certificate", "profile", "tidy"]
    assert steps(None) == [] and kept(house) == []
    wrong = certificate(address="bert@kunde.test")
    assert code(lambda: steps(wrong)) == "smime-unusable"


def test_it_is_written_down_and_read_back(house: House) -> None:
    onboard(house, make_wish())
    smime.take(house, NAME, certificate())
    profile = house.records.load(NAME)
    document = write_profile(profile)
    assert read_profile(document, SETTINGS) == profile
    document["smime"]["fingerprint"] = "short"
    with pytest.raises(InvalidInputError, match="not valid"):
        read_profile(document, SETTINGS)


FACTS = CertificateFacts(
    fingerprint=ONE,
    subject="CN=Anna",
    issuer="CN=CA",
    addresses=(ADDRESS,),
    begins=NOW - timedelta(days=1),
    ends=NOW + timedelta(days=1),
    signs=True,
    encrypts=True,
    for_mail=True,
    pem="",
)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"addresses": ()}, "is for no address"),
        ({"ends": NOW}, "expired on 2026-06-01"),
        ({"begins": NOW + timedelta(days=2)}, "is valid only from 2026-06-03"),
        ({"for_mail": False}, "is not meant for mail"),
        ({"signs": False, "encrypts": False}, "may neither sign nor encrypt"),
        ({"signs": False}, None),
    ],
)
def test_a_certificate_is_judged(changes: dict[str, object], problem: str | None) -> None:
    found = certificate_problem(replace(FACTS, **changes), ADDRESS.upper(), NOW)  # type: ignore[arg-type]
    assert found is None if problem is None else (found or "").startswith(problem)


def test_what_it_lacks_is_said() -> None:
    assert certificate_lacks(FACTS) == ""
    assert "not sign" in certificate_lacks(replace(FACTS, signs=False))
    assert "nobody can encrypt" in certificate_lacks(replace(FACTS, encrypts=False))


def test_drafts_of_a_killed_command_go(house: House, tmp_path: Path) -> None:
    onboard(house, make_wish())
    smime.take(house, NAME, certificate())
    (house.paths.smime(NAME) / ".draft.tmp").write_bytes(b"x")
    (house.paths.smime(NAME) / f"{TWO}.p12").write_bytes(b"x")
    smime.tidy(house, NAME)
    assert kept(house) == [ONE]


def test_a_lost_keyring_drops_it_and_says_so(house: House, world: World) -> None:
    codes: list[str] = []
    onboard(house, make_wish(hand_over=codes.append))
    smime.take(house, NAME, certificate())
    house.vault.delete(house.records.load(NAME).id, SMIME_PASSPHRASE)
    assert code(lambda: open_mailbox(house, NAME, headless=True)) == "keyring-item-missing"
    world.warned.clear()
    recover(house, NAME, Means(codes[0], password=lambda: PASSWORD))
    assert any("S/MIME certificate; it is dropped" in said for said in world.warned)
    assert kept(house) == [] and house.records.load(NAME).smime is None
    open_mailbox(house, NAME, headless=True)


def test_an_onboarding_on_a_copy_keeps_for_whom_keys_were_accepted(house: House) -> None:
    accepted = (Correspondent(BERT, ("b@p.test", "bert@work.test")),)
    onboard(house, make_wish(accepted=accepted))
    assert house.records.load(NAME).keys.correspondents == accepted
