"""The life of a mailbox's own key: made, replaced, extended, revoked; and who is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.cli import own_key_commands
from sandbox.lifecycle import preview
from sandbox.lifecycle.case import take_inventory
from sandbox.lifecycle.forget_key import forget
from sandbox.lifecycle.house import House
from sandbox.lifecycle.key_details import show_key
from sandbox.lifecycle.keychange import as_in_ring
from sandbox.lifecycle.keys import list_keys
from sandbox.lifecycle.observe import observe_all
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.own_keys import (
    Extension,
    Revocation,
    Rotation,
    extend,
    generate,
    letter_again,
    plan_generate,
    plan_revoke,
    revoke,
    rotate,
    save_certificate,
)
from sandbox.lifecycle.publish import publish
from sandbox.lifecycle.recover import Means, recover
from sandbox.lifecycle.shred import shred
from sandbox.model.custody import Custody, Where
from sandbox.model.errors import MailboxError
from sandbox.model.keycare import cares
from sandbox.model.keydetails import HERE, VALID, NewKey, Part, Reason, to_extend
from sandbox.model.keys import Key, problem_as
from sandbox.model.openpgp import Correspondent, Keys
from sandbox.model.secrets import ITEMS, KEY_PASSPHRASE
from tests.unit.fakes import BERT, CODES, EXTENDED, NAME, OWN, PASSWORD, SETTINGS, World, make_wish

NEXT = "E" * 39 + "0"
ALL = NewKey()


@pytest.fixture
def own(house: House) -> House:
    """A mailbox with a key of its own."""
    onboard(house, make_wish())
    return house


def keys_of(house: House) -> Keys:
    return house.records.load(NAME).keys


def refused(code: str) -> pytest.RaisesExc[MailboxError]:
    return pytest.RaisesExc(MailboxError, check=lambda error: error.code == code)


# -- generate and rotate --------------------------------------------------------------------------


def test_a_mailbox_without_a_key_gets_one(house: House) -> None:
    onboard(house, make_wish(key=KeyChoice(), correspondents=()))
    result = generate(house, NAME, ALL)
    assert keys_of(house).fingerprint == result.facts["fingerprint"] == OWN
    with pytest.raises(MailboxError) as again:
        generate(house, NAME, ALL)
    assert again.value.code == "key-exists" and "keys rotate" in again.value.resolution


def test_the_old_key_stays_for_old_mail_and_both_reach_the_machine(
    own: House, world: World
) -> None:
    result = rotate(own, NAME, Rotation())
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (NEXT, (OWN,))
    assert result.facts["retired"] == [OWN] and result.facts["open"] is False
    open_mailbox(own, NAME, headless=True)
    said = world.desired[-1]["openpgp"]
    assert said["key"]["fingerprint"] == NEXT
    assert [each["fingerprint"] for each in said["retired"]] == [OWN]
    assert said["key"]["passphrase"] == said["retired"][0]["passphrase"]
    assert "opened again" in rotate(own, NAME, Rotation()).summary
    assert keys_of(own).retired == (NEXT, OWN)


def test_correspondents_are_told_with_the_old_keys_signature(own: House) -> None:
    facts = rotate(own, NAME, Rotation()).facts
    assert facts["signed_by"] == (OWN, NEXT)
    letter = facts["letter"]
    assert "AAAA AAAA" in letter and "EEEE EEE0" in letter and f"public {NEXT}" in letter
    assert letter.index("signed by") < letter.index("public")
    assert letter_again(own, NAME).letter == letter


def test_a_revoked_key_signs_no_letter(own: House) -> None:
    revoke(own, NAME, Revocation())
    facts = rotate(own, NAME, Rotation()).facts
    assert facts["signed_by"] == () and "signed by" not in facts["letter"]


def test_a_key_of_the_users_is_taken_and_an_old_one_taken_back(own: House, world: World) -> None:
    world.keys[NEXT] = ("anna@kunde.test", "pw")
    choice = KeyChoice(fingerprint=NEXT, ask=lambda _: "pw")
    rotate(own, NAME, Rotation(choice))
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (NEXT, (OWN,))
    with refused("key-exists"):
        rotate(own, NAME, Rotation(choice))
    rotate(own, NAME, Rotation(KeyChoice(file=f"secret {OWN} anna@kunde.test".encode())))
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (OWN, (NEXT,))
    same = KeyChoice(file=f"secret {OWN} anna@kunde.test".encode())
    with refused("key-exists"):
        rotate(own, NAME, Rotation(same))
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (OWN, (NEXT,))


def test_what_fails_leaves_ring_and_profile_as_they_were(own: House, world: World) -> None:
    world.faults["keyring.generate"] = MailboxError("No.", code="gnupg-failed")
    before, files = keys_of(own), sorted(own.paths.keys.rglob("*"))
    with refused("gnupg-failed"):
        rotate(own, NAME, Rotation())
    assert keys_of(own) == before and sorted(own.paths.keys.rglob("*")) == files
    assert own.journal(NAME).read().pending() is None


def test_without_the_passphrase_nothing_is_begun(own: House) -> None:
    own.vault.delete(own.records.load(NAME).id, KEY_PASSPHRASE)
    before = own.journal(NAME).read()
    for change in (
        lambda: rotate(own, NAME, Rotation()),
        lambda: extend(own, NAME, Extension()),
    ):
        with refused("keyring-item-missing"):
            change()
    assert own.journal(NAME).read() == before


def test_a_held_key_is_split_and_the_guard_is_told_of_retired_ones(
    house: House, world: World
) -> None:
    onboard(house, make_wish(settings=replace(SETTINGS, custody=Custody(Where.HOST))))
    rotate(house, NAME, Rotation())
    open_mailbox(house, NAME, headless=True)
    (guard,) = world.state["custodians"].values()
    assert (guard["fingerprint"], guard["retired"]) == (NEXT, [OWN])
    said = world.desired[-1]["openpgp"]
    assert said["custody"] == "host"
    assert said["key"]["secret"] is said["retired"][0]["secret"] is None


# -- extend ---------------------------------------------------------------------------------------


def test_the_end_moves_and_the_profile_notes_it(own: House, world: World) -> None:
    result = extend(own, NAME, Extension())
    assert keys_of(own).expires == result.facts["expires"] == "2040-01-01"
    assert list_keys(own, NAME)[0].expires == EXTENDED


def test_dates_come_from_a_file_or_from_gnupg(own: House) -> None:
    newer = f"public {OWN} anna@kunde.test".encode()
    extend(own, NAME, Extension(file=newer))
    assert keys_of(own).expires == "2040-01-01"
    extend(own, NAME, Extension(gnupg=True))


def test_without_a_key_there_is_nothing_to_extend_or_revoke(house: House) -> None:
    onboard(house, make_wish(key=KeyChoice()))
    for change in (
        lambda: extend(house, NAME, Extension()),
        lambda: revoke(house, NAME, Revocation()),
        lambda: show_key(house, NAME, None),
        lambda: save_certificate(house, NAME, None, Path("x")),
        lambda: letter_again(house, NAME),
    ):
        with refused("key-not-found"):
            change()


def part(use: str, state: str, created: int) -> Part:
    return Part(f"{use}{created}", "ed25519", (use,), created, 1, state, HERE)


@pytest.mark.parametrize(
    ("subkeys", "moved"),
    [
        ([part("encrypt", VALID, 2)], ("encrypt2",)),
        ([part("encrypt", "expired", 2), part("encrypt", VALID, 3)], ("encrypt3",)),
        ([part("encrypt", "expired", 2), part("encrypt", "expired", 3)], ("encrypt3",)),
        ([part("encrypt", "revoked", 2)], ()),
        (
            [part("sign", "expired", 2), part("encrypt", "expired", 2), part("sign", "revoked", 3)],
            ("sign2", "encrypt2"),
        ),
    ],
)
def test_what_ended_on_purpose_stays_ended(subkeys: list[Part], moved: tuple[str, ...]) -> None:
    assert to_extend([part("certify", VALID, 1), *subkeys]) == moved


# -- revoke ---------------------------------------------------------------------------------------


def test_a_revoked_key_opens_old_mail_and_is_warned_of(own: House, world: World) -> None:
    result = revoke(own, NAME, Revocation(reason=Reason.COMPROMISED))
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (None, (OWN,))
    assert result.facts["certificate"] == "made" and OWN in result.facts["public"]
    world.warned.clear()
    open_mailbox(own, NAME, headless=True)
    said = world.desired[-1]["openpgp"]
    assert said["key"] is None and said["retired"][0]["fingerprint"] == OWN
    assert any("writes unsigned" in text for text in world.warned)
    (seen,) = observe_all(own)
    assert seen.profile and any("unsigned" in care for care in cares(seen.profile.keys))
    generate(own, NAME, ALL)
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (NEXT, (OWN,))


def test_a_retired_key_can_be_revoked_too(own: House) -> None:
    rotate(own, NAME, Rotation())
    revoke(own, NAME, Revocation(OWN))
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (NEXT, (OWN,))
    assert show_key(own, NAME, OWN).details.primary.state == "revoked"


def test_without_keyring_the_kept_certificate_does_it(own: House, world: World) -> None:
    own.vault.delete(own.records.load(NAME).id, KEY_PASSPHRASE)
    result = revoke(own, NAME, Revocation(reason=Reason.COMPROMISED))
    assert result.facts["certificate"] == "kept"
    assert any("does not say the reason" in text for text in world.warned)


def test_without_any_certificate_it_is_said(own: House) -> None:
    own.vault.delete(own.records.load(NAME).id, KEY_PASSPHRASE)
    (own.paths.gnupg(NAME) / "openpgp-revocs.d" / f"{OWN}.rev").unlink()
    with refused("revocation-missing"):
        revoke(own, NAME, Revocation())
    with refused("key-unusable"):
        revoke(own, NAME, Revocation(certificate=b"revokes another"))
    assert keys_of(own).fingerprint == OWN
    given = Revocation(certificate=f"revokes {OWN}".encode())
    assert revoke(own, NAME, given).facts["certificate"] == "given"


def test_revoked_keys_are_published_beside_the_new_one(own: House, tmp_path: Path) -> None:
    rotate(own, NAME, Rotation())
    revoke(own, NAME, Revocation(OWN))
    facts = publish(own, NAME, tmp_path).facts
    assert (facts["fingerprint"], facts["revoked"]) == (NEXT, [OWN])
    (written, *_) = (tmp_path / each for each in facts["files"] if "/hu/" in each)
    content = written.read_text()
    assert f"published {NEXT}" in content and f"published {OWN}" in content
    revoke(own, NAME, Revocation())
    facts = publish(own, NAME, tmp_path).facts
    assert facts["fingerprint"] is None and set(facts["revoked"]) == {OWN, NEXT}


# -- the recovery material ------------------------------------------------------------------------


def test_a_certificate_is_saved_once_and_is_on_record(own: House, tmp_path: Path) -> None:
    file = tmp_path / "anna.rev"
    assert str(file) in save_certificate(own, NAME, None, file).summary
    assert f"revokes {OWN}".encode() in file.read_bytes() and not file.stat().st_mode & 0o077
    with pytest.raises(MailboxError):
        save_certificate(own, NAME, None, file)
    rows = {row.id: row for row in take_inventory(own, NAME)}
    assert rows["revocation"].destroys and rows["revocation"].where == OWN
    assert not rows["revocation-saved"].destroys
    assert rows["revocation-saved"].where == str(file)
    shred(own, NAME)
    assert file.exists() and not own.paths.gnupg(NAME).exists()


def test_a_lost_keyring_leaves_what_revokes_the_key(own: House, world: World) -> None:
    rotate(own, NAME, Rotation())
    identity = own.records.load(NAME).id
    for kind in ITEMS:
        own.vault.delete(identity, kind)
    recover(own, NAME, Means(CODES[-1], lambda: PASSWORD, without_key=True))
    # The user's own GnuPG still has the key of before.
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (None, (OWN,))
    assert show_key(own, NAME, NEXT).role == "former"
    result = revoke(own, NAME, Revocation(NEXT))
    assert result.facts["certificate"] == "kept"
    assert keys_of(own).retired == (OWN,)


def test_a_retired_key_that_is_lost_is_said(own: House, world: World) -> None:
    rotate(own, NAME, Rotation())
    del world.keys[OWN]
    world.keys[NEXT] = ("anna@kunde.test", "")
    own.vault.delete(own.records.load(NAME).id, KEY_PASSPHRASE)
    recover(own, NAME, Means(CODES[-1], lambda: PASSWORD))
    assert (keys_of(own).fingerprint, keys_of(own).retired) == (NEXT, ())
    assert any(OWN in text and "cannot be unlocked" in text for text in world.warned)


# -- shown and warned of --------------------------------------------------------------------------


def test_each_key_of_a_mailbox_is_shown(own: House) -> None:
    rotate(own, NAME, Rotation())
    shown = {each: show_key(own, NAME, each) for each in (NEXT, OWN, BERT)}
    roles = [each.role for each in shown.values()]
    assert roles == ["own", "retired", "correspondent"]
    assert shown[NEXT].custody == "guest" and shown[BERT].custody == ""
    assert shown[NEXT].revocation.endswith(f"{NEXT}.rev") and not shown[BERT].revocation
    begun = own.journal(NAME).read().last("onboard", "done", step="keys")
    assert begun and shown[OWN].since == begun.time < shown[NEXT].since
    assert shown[BERT].since == own.records.load(NAME).created
    with refused("key-not-found"):
        show_key(own, NAME, "D" * 40)
    assert [each.role for each in list_keys(own, NAME)] == ["own", "retired", "correspondent"]


def test_of_a_retired_key_only_a_lost_secret_is_a_problem() -> None:
    key = Key(OWN, (), (), "ESC", "r", 1, secret=True)
    assert problem_as(key, "retired") is None
    assert problem_as(key, "own") == "is revoked"
    assert problem_as(replace(key, secret=False), "retired") == "has no secret part here"


def test_lists_warn_before_a_key_ends_without_looking_into_the_ring() -> None:
    now = datetime(2026, 5, 4, 23, 59, tzinfo=UTC)
    bert = Correspondent(BERT, ("b@p.test",), "2026-05-01")
    said = list(cares(Keys(OWN, (bert,), expires="2026-06-03"), now))
    assert said == [
        f"Its own key: {OWN} expires on 2026-06-03.",
        f"b@p.test: {BERT} expired on 2026-05-01.",
    ]
    assert list(cares(Keys(OWN, expires="2026-06-04"), now)) == []
    assert list(cares(Keys(OWN), now)) == list(cares(Keys(), now)) == []


@pytest.mark.parametrize(
    ("keys", "ring", "wished", "own", "retired"),
    [
        (Keys(OWN), {OWN: "u"}, "", OWN, ()),
        (Keys(OWN), {OWN: "u", NEXT: "u"}, NEXT, NEXT, (OWN,)),
        (Keys(OWN), {OWN: "u"}, NEXT, OWN, ()),  # killed before the ring was replaced
        (Keys(OWN, retired=(BERT,)), {OWN: "r", BERT: "u"}, "", None, (OWN, BERT)),
        (Keys(OWN, retired=(NEXT,)), {OWN: "u", NEXT: "u"}, NEXT, NEXT, (OWN,)),
        (Keys(None, retired=(OWN,)), {OWN: "r", NEXT: "u"}, NEXT, NEXT, (OWN,)),
        (Keys(OWN, expires="2030-01-01"), {}, "", OWN, ()),
    ],
)
def test_the_profile_follows_the_ring(
    keys: Keys, ring: dict[str, str], wished: str, own: str | None, retired: tuple[str, ...]
) -> None:
    found = {
        fpr: Key(fpr, (), (), "ESC", letter, None, secret=True) for fpr, letter in ring.items()
    }
    after = as_in_ring(keys, found, wished)
    assert (after.fingerprint, after.retired) == (own, retired)
    assert after.expires == (keys.expires if not ring else "")


# -- forget ---------------------------------------------------------------------------------------


def test_a_forgotten_key_leaves_the_machine_and_can_still_be_revoked(
    own: House, world: World
) -> None:
    rotate(own, NAME, Rotation())
    result = forget(own, NAME, OWN)
    assert result.facts == {"fingerprint": OWN, "already": False, "open": False}
    assert (keys_of(own).private, keys_of(own).forgotten) == ((NEXT,), (OWN,))
    assert OWN not in [each.fingerprint for each in list_keys(own, NAME)]
    open_mailbox(own, NAME, headless=True)
    said = world.desired[-1]["openpgp"]
    assert (said["retired"], said["forgotten"]) == ([], [OWN])
    assert show_key(own, NAME, OWN).role == "former"
    assert revoke(own, NAME, Revocation(OWN)).facts["certificate"] == "kept"
    assert keys_of(own).private == (NEXT,)


def test_only_a_key_of_before_is_forgotten(own: House) -> None:
    with refused("key-in-use"):
        forget(own, NAME, OWN)
    for other in (BERT, NEXT):
        with refused("key-not-found"):
            forget(own, NAME, other)


def test_a_key_is_forgotten_once(own: House) -> None:
    rotate(own, NAME, Rotation())
    forget(own, NAME, OWN)
    before = own.journal(NAME).read()
    assert forget(own, NAME, OWN).facts == {"fingerprint": OWN, "already": True}
    assert own.journal(NAME).read() == before and keys_of(own).forgotten == (OWN,)


def test_a_forgotten_key_that_comes_back_is_the_own_one_again(own: House) -> None:
    rotate(own, NAME, Rotation())
    forget(own, NAME, OWN)
    rotate(own, NAME, Rotation(KeyChoice(file=f"secret {OWN} anna@kunde.test".encode())))
    keys = keys_of(own)
    assert (keys.fingerprint, keys.retired, keys.forgotten) == (OWN, (NEXT,), ())


def test_what_was_forgotten_stays_so_in_a_ring_made_anew(own: House) -> None:
    rotate(own, NAME, Rotation())
    forget(own, NAME, OWN)
    own.vault.delete(own.records.load(NAME).id, KEY_PASSPHRASE)
    recover(own, NAME, Means(CODES[-1], lambda: PASSWORD, without_key=True))
    assert keys_of(own).forgotten == (OWN,)


# -- shown before it is done, and on the command line ---------------------------------------------


def test_the_plans_are_shown_and_nothing_is_done(own: House) -> None:
    before = own.journal(NAME).read()
    steps = ["draft", "ring", "profile"]
    shown = preview.changing_own_key(own, NAME, lambda each: plan_revoke(each, Revocation()))
    assert [step.id for step in shown.steps] == steps and shown.verb == "keys revoke"
    with refused("key-exists"):
        preview.changing_own_key(own, NAME, plan_generate)
    assert own.journal(NAME).read() == before and keys_of(own).fingerprint == OWN


def run(house: House, monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> int:
    monkeypatch.setattr(own_key_commands, "compose", lambda _printer: house)
    with pytest.raises(SystemExit) as ended:
        own_key_commands.keys.commands[command].main([*arguments], standalone_mode=False)
    return int(ended.value.code or 0)


def test_the_commands_report(
    own: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(own, monkeypatch, "rotate", NAME) == 0
    assert "signed by" in capsys.readouterr().out
    assert run(own, monkeypatch, "show", NAME, "--letter") == 0
    assert "signed by" in capsys.readouterr().out
    assert run(own, monkeypatch, "show", NAME) == 0
    shown = capsys.readouterr().out
    assert NEXT in shown and "secret here" in shown and "openpgp-revocs.d" in shown
    assert run(own, monkeypatch, "show", NAME, "--json", "--public") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["role"] == "own" and document["public"].startswith(f"public {NEXT}")
    assert document["details"]["parts"][0]["uses"] == ["certify", "sign"]
    assert run(own, monkeypatch, "extend", NAME, "--expires", "18m", "--json") == 0
    assert json.loads(capsys.readouterr().out)["facts"]["expires"] == "2040-01-01"
    assert run(own, monkeypatch, "revoke", NAME, "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-confirmed"
    assert run(own, monkeypatch, "revoke", NAME, "--yes", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dry_run"] is True
    assert run(own, monkeypatch, "revoke", NAME, "--yes", "--reason", "unused", "--json") == 0
    assert json.loads(capsys.readouterr().out)["facts"]["reason"] == "unused"
    assert run(own, monkeypatch, "forget", NAME, OWN, "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-confirmed"
    assert run(own, monkeypatch, "forget", NAME, OWN, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dry_run"] is True
    assert run(own, monkeypatch, "forget", NAME, OWN, "--yes", "--json") == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert (facts["fingerprint"], facts["already"]) == (OWN, False)
    assert run(own, monkeypatch, "forget", NAME, OWN, "--json") == 0
    assert json.loads(capsys.readouterr().out)["facts"]["already"] is True


@pytest.mark.parametrize("text", ["2", "y", "0y", "-1y", "2020-01-01", "tomorrow", "2y; rm"])
def test_an_end_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        own_key_commands._lasting(text)


@pytest.mark.parametrize(
    ("text", "gnupg"), [("2y", "2y"), ("90d", "90d"), ("never", "0"), ("2999-01-01", "2999-01-01")]
)
def test_an_end_is_said_as_gnupg_takes_it(text: str, gnupg: str) -> None:
    assert own_key_commands._lasting(text) == gnupg
