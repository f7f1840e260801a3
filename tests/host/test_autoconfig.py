"""The image's own Thunderbird files, exercised by a Thunderbird on this machine."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from demo import letters
from demo.correspondent import Person
from demo.desired import SIGNATURE, desired_state
from demo.mailserver import CORRESPONDENT, CUSTOMER, MailServer
from demo.native import NativeThunderbird, missing
from demo.proof import Proof, through

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")

Json = dict[str, Any]
SECRET_SUBJECT = "Geheim: die Übergabe"
SECRET_TEXT = "Der Code für die Tür ist 4711."


@dataclass
class World:
    server: MailServer
    anna: Person
    bert: Person
    carla: Person
    thunderbird: NativeThunderbird

    def desired(self, **changes: Any) -> Json:
        return desired_state(self.server, self.anna, (self.bert, self.carla), **changes)

    def open(self, desired: Json | None = None) -> list[Json]:
        return self.thunderbird.open(desired or self.desired())

    def reopen(self, desired: Json | None = None) -> list[Json]:
        self.thunderbird.close()
        return self.open(desired)

    def receive(self, message: bytes) -> None:
        """A new message, waited for as a person would: get messages again."""
        self.server.deliver(message, CUSTOMER)
        count = len(self.server.messages(CUSTOMER))
        self.open()
        self.thunderbird.proof.facts(messages=count)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        anna = stack.enter_context(Person("Anna Kundin", CUSTOMER))
        bert = stack.enter_context(Person("Bert Partner", CORRESPONDENT))
        carla = stack.enter_context(Person("Carla Fremd", "carla@partner.test"))
        bert.learn(anna.public_key(), certify=True)
        server = stack.enter_context(MailServer())
        for message in letters.ordinary(bert.sender, anna.sender):
            server.deliver(message, CUSTOMER)
        server.deliver(bert.letter(anna, SECRET_SUBJECT, SECRET_TEXT), CUSTOMER)
        thunderbird = stack.enter_context(NativeThunderbird(local_names=server.names))
        yield World(server, anna, bert, carla, thunderbird)


def names(events: list[Json]) -> list[str]:
    return [event["name"] for event in events if event["event"] == "phase"]


def troubles(events: list[Json]) -> list[str]:
    return [event["code"] for event in events if event["event"] != "phase"]


PHASES = ["account", "keys", "window", "ready"]


def test_first_start_provisions_and_asks_nothing(world: World) -> None:
    events = world.open()
    assert (names(events), troubles(events)) == (PHASES, [])
    facts = world.thunderbird.proof.facts()
    assert facts.inbox["messages"] == 4  # ready means that the mail is there
    assert [account["type"] for account in facts.accounts] == ["imap", "none"]
    assert facts.accounts[0]["name"] == f"kunde ({CUSTOMER})"
    assert {"INBOX", "Drafts", "Sent", "Trash"} <= set(facts.accounts[0]["folders"])
    assert facts.identity["signature"] == SIGNATURE
    assert facts.identity["openpgp_key_id"] == world.anna.fingerprint[-16:]
    assert all(facts.identity[x] for x in ("protect_subject", "encrypt_drafts", "autocrypt"))
    assert facts.colour == "#2a7f62"
    assert facts.title.startswith("kunde: ")
    assert not facts.offline
    assert facts.addons == []  # no program's own add-on with its eyes on the mail
    assert world.thunderbird.proof.dialogs() == []


def test_keys_are_accepted_as_the_state_says(world: World) -> None:
    world.open()
    keys = {key["fingerprint"]: key for key in world.thunderbird.proof.facts().keys}
    assert keys[world.anna.fingerprint]["secret"]
    assert keys[world.anna.fingerprint]["acceptance"] == "personal"
    assert keys[world.bert.fingerprint]["acceptance"] == "verified"


def test_it_proves_which_keys_serve(world: World) -> None:
    bert, carla = world.bert, world.carla
    others = [
        {"fingerprint": person.fingerprint, "addresses": [person.address]}
        for person in (bert, carla)
    ]
    request = {"own": world.anna.fingerprint, "custody": "guest", "correspondents": others}
    world.open()
    expected = {world.anna.fingerprint: "", bert.fingerprint: "", carla.fingerprint: ""}
    assert world.thunderbird.check(request) == expected
    without = world.desired()
    del without["openpgp"]["correspondents"][1]
    world.open(without)
    problems = world.thunderbird.check(
        {**request, "correspondents": [*others, {"fingerprint": "A" * 40, "addresses": []}]}
    )
    assert problems == {
        **expected,
        carla.fingerprint: f"no accepted key for {carla.address}",
        "A" * 40: "the mail client does not have this key",
    }
    assert world.thunderbird.check({**request, "own": None}).pop(bert.fingerprint) == ""
    world.open()


def test_encrypted_message_is_shown_verified(world: World, tmp_path: Path) -> None:
    world.open()
    shown = world.thunderbird.proof.open(index=3, expect={"signed": "verified"})
    assert (shown.encrypted, shown.signed, shown.technology) == ("ok", "verified", "OpenPGP")
    assert (shown.subject, shown.body, shown.bars) == (SECRET_SUBJECT, SECRET_TEXT, [])
    picture = tmp_path / "screen.png"
    world.thunderbird.screenshot(picture)
    assert picture.stat().st_size > 20000  # an empty screen takes a few hundred bytes


def test_the_proofs_run_as_one_piped_script(world: World) -> None:
    world.open()

    def run(source: bytes) -> bytes:
        command = ["/usr/bin/python3", "-I", "-"]
        return subprocess.run(command, input=source, capture_output=True, check=True).stdout

    proof = Proof(through(run, port=world.thunderbird.port))
    assert proof.open(index=3).body == SECRET_TEXT
    assert proof.dialogs() == []


def test_ordinary_mail_is_neither_encrypted_nor_signed(world: World) -> None:
    world.open()
    shown = world.thunderbird.proof.open(index=0)
    assert (shown.encrypted, shown.signed) == (None, None)
    assert "Schlüsselübergabe" in shown.body


def test_remote_pictures_are_not_fetched(world: World) -> None:
    world.open()
    shown = world.thunderbird.proof.open(subject="Angebot als HTML")
    assert "1.200 €" in shown.body
    assert not any(image["loaded"] for image in shown.images)


def test_other_signatures_are_told_apart(world: World) -> None:
    bert, carla, anna = world.bert, world.carla, world.anna
    world.receive(bert.letter(anna, "ohne Unterschrift", "a", sign=False))
    world.receive(carla.letter(anna, "von Carla als Bert", "b", claim=bert.sender))
    with Person("Dora", "dora@partner.test") as dora:
        world.receive(dora.letter(anna, "von einer Fremden", "c"))
    count = world.thunderbird.proof.facts().inbox["messages"]
    shown = [world.thunderbird.proof.open(index=count - n) for n in (3, 2, 1)]
    assert [one.body for one in shown] == ["a", "b", "c"]
    assert [one.encrypted for one in shown] == ["ok", "ok", "ok"]
    assert [one.signed for one in shown] == [None, "mismatch", "unknown"]


def test_mail_for_another_key_is_not_shown_as_read(world: World) -> None:
    with Person("Eva", CUSTOMER) as eva:
        world.receive(world.bert.letter(eva, "an einen anderen Schlüssel", "d"))
    count = world.thunderbird.proof.facts().inbox["messages"]
    shown = world.thunderbird.proof.open(index=count - 1)
    assert shown.encrypted == "notok"
    assert any("decryptionFailed" in bar for bar in shown.bars)


def test_reply_is_encrypted_signed_and_verified_by_the_correspondent(world: World) -> None:
    world.open()
    before = len(world.server.messages(CORRESPONDENT))
    world.thunderbird.proof.open(index=3)
    composed = world.thunderbird.proof.reply("Danke, grüße Köln!", index=3)
    assert (composed.encrypt, composed.sign, composed.openpgp) == (True, True, True)
    assert (composed.to, composed.sent, composed.dialogs) == ([CORRESPONDENT], True, [])
    arrived = world.server.wait_for_messages(CORRESPONDENT, before + 1)[-1]
    reading = world.bert.read(arrived)
    assert reading.decrypted
    assert (reading.signature, reading.signer) == ("good", world.anna.fingerprint)
    assert (reading.validity, reading.outer_subject) == ("fully", "...")
    assert reading.subject == f"Re: {SECRET_SUBJECT}"
    assert reading.text.startswith("Danke, grüße Köln!")
    assert b"4711" not in arrived


def test_a_recipient_without_a_key_does_not_block(world: World) -> None:
    world.open()
    before = len(world.server.messages(CORRESPONDENT))
    alone = world.thunderbird.proof.write("fred@partner.test", "offen", "Text", send=False)
    assert (alone.encrypt, alone.bars) == (False, [])
    to_bert = world.thunderbird.proof.write(CORRESPONDENT, "neu", "Text")
    assert (to_bert.encrypt, to_bert.sign, to_bert.sent) == (True, True, True)
    world.server.wait_for_messages(CORRESPONDENT, before + 1)


def test_what_is_being_written_is_kept_as_an_encrypted_draft(world: World) -> None:
    world.open()
    world.thunderbird.proof.write(CORRESPONDENT, "halb fertig", "Unfertiger Satz", send=None)
    assert world.thunderbird.close()
    drafts = world.server.wait_for_messages(CUSTOMER, 1, folder="Drafts")
    reading = world.anna.read(drafts[-1])
    assert reading.decrypted
    assert reading.text.startswith("Unfertiger Satz")


def settings(world: World) -> list[str]:
    """The lines of prefs.js that the desired state is about."""
    lines = world.thunderbird.profile_file("prefs.js").read_text().splitlines()
    about = re.compile(r'user_pref\("(mail\.(account|identity|server|smtp)|mailbox\.)')
    passing = re.compile(r"nextFilterTime|last_|storeContractID|timeout|serverIDResponse|namespace")
    return sorted(line for line in lines if about.match(line) and not passing.search(line))


def test_a_second_start_changes_nothing(world: World) -> None:
    world.open()
    before = world.thunderbird.proof.facts()
    world.thunderbird.close()
    written = settings(world)
    events = world.open()
    after = world.thunderbird.proof.facts()
    assert (names(events), troubles(events)) == (PHASES, [])
    assert replace(after, title="") == replace(before, title="")
    world.thunderbird.close()
    assert settings(world) == written


def test_opening_again_while_it_runs_applies_and_answers(world: World) -> None:
    world.open()
    desired = world.desired()
    desired["account"]["signature"] = "Andere Unterschrift"
    events = world.open(desired)
    assert (names(events), troubles(events)) == (PHASES, [])
    assert world.thunderbird.proof.facts().identity["signature"] == "Andere Unterschrift"


def test_a_changed_password_is_used(world: World) -> None:
    world.open()
    old = world.server.password(CUSTOMER)
    world.server.set_password(CUSTOMER, "Neu-und-Anders")
    try:
        assert troubles(world.reopen()) == []
        composed = world.thunderbird.proof.write(CORRESPONDENT, "mit neuem Passwort", "Text")
        assert composed.sent
        assert len(world.thunderbird.proof.facts().logins) == 2
    finally:
        world.server.set_password(CUSTOMER, old)
        world.thunderbird.close()


def test_moved_servers_change_the_account_in_place(world: World) -> None:
    world.open()
    before = world.thunderbird.proof.facts()
    moved = world.desired(
        imap="imap-neu.kunde.test", smtp="smtp-neu.kunde.test", security="starttls"
    )
    assert troubles(world.reopen(moved)) == []
    after = world.thunderbird.proof.facts(messages=before.inbox["messages"])
    assert [a["key"] for a in after.accounts] == [a["key"] for a in before.accounts]
    assert (after.identities, len(after.outgoing)) == (1, 1)
    assert after.accounts[0]["host"] == "imap-neu.kunde.test"
    assert sorted(after.accounts[0]["folders"]) == sorted(before.accounts[0]["folders"])
    assert after.logins == [
        f"imap://imap-neu.kunde.test {CUSTOMER}",
        f"smtp://smtp-neu.kunde.test {CUSTOMER}",
    ]
    assert world.thunderbird.proof.open(index=3).body == SECRET_TEXT
    assert world.thunderbird.proof.write(CORRESPONDENT, "umgezogen", "Text").sent
    assert troubles(world.reopen()) == []


def test_a_key_off_the_list_is_no_longer_vouched_for(world: World) -> None:
    only_carla = desired_state(world.server, world.anna, (world.carla,))
    world.reopen(only_carla)
    assert world.thunderbird.proof.open(index=3).signed == "unknown"
    composed = world.thunderbird.proof.write(CORRESPONDENT, "offen", "Text", send=False)
    assert not composed.encrypt
    world.open()
    assert world.thunderbird.proof.open(index=0).signed is None
    again = world.thunderbird.proof.open(index=3, expect={"signed": "verified"})
    assert again.signed == "verified"


def test_a_power_cut_leads_to_no_question(world: World) -> None:
    world.open()
    for _ in range(3):
        world.thunderbird.kill()
        events = world.open()
        assert (names(events), troubles(events)) == (PHASES, [])
    assert world.thunderbird.proof.dialogs() == []


def test_a_server_that_is_away_is_a_warning(world: World) -> None:
    world.thunderbird.close()
    with world.server.pause():
        events = world.open()
        assert (names(events), troubles(events)) == (PHASES, ["inbox-not-synchronised"])
        assert world.thunderbird.proof.dialogs() == []
    assert troubles(world.open()) == []


def test_a_wrong_password_is_a_warning(world: World) -> None:
    world.thunderbird.close()
    desired = copy.deepcopy(world.desired())
    desired["account"]["incoming"]["password"] = "falsch"
    events = world.open(desired)
    assert names(events)[-1] == "ready"
    assert troubles(events) == ["inbox-not-synchronised"]
    assert "Login to server" in events[-2]["message"]
    assert world.thunderbird.close()  # although a question is open
    assert troubles(world.open()) == []


def test_an_untrusted_authority_is_a_warning(world: World) -> None:
    world.thunderbird.close()
    events = world.open({**world.desired(), "ca": []})
    assert troubles(events) == ["inbox-not-synchronised"]
    assert troubles(world.reopen()) == []


def test_no_secret_lies_in_the_open(world: World) -> None:
    world.open()
    world.thunderbird.close()
    folder = world.thunderbird.home.parent
    secrets = [world.server.password(CUSTOMER).encode(), b"PGP PRIVATE KEY"]
    for path in (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        content = path.read_bytes() if "thunderbird-bin" not in path.name else b""
        assert not any(secret in content for secret in secrets), path
    assert not (folder / "state" / "desired.json").exists()


def test_malformed_states_are_errors_with_a_code(world: World) -> None:
    world.thunderbird.close()
    assert troubles(world.open({"version": 99, "marionette": False})) == ["bad-state"]
    world.thunderbird.close()
    broken = copy.deepcopy(world.desired())
    broken["openpgp"]["key"]["secret"] = "nothing of the kind"
    broken["openpgp"]["key"]["fingerprint"] = "A" * 40
    assert troubles(world.open(broken)) == ["key-import"]
    world.thunderbird.close()
    assert troubles(world.open()) == []


def kept_scripts(world: World) -> dict[str, int]:
    folder = world.thunderbird.home / ".cache/thunderbird/mailbox/startupCache"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("scriptCache*")}


def test_a_new_profile_starts_with_the_scripts_that_are_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open()
    for _ in range(60):  # they are written ten seconds after a start
        if kept_scripts(world):
            break
        time.sleep(1)
    world.thunderbird.close()
    world.open()
    world.thunderbird.close()
    before = kept_scripts(world)
    profile = world.thunderbird.profile_file("prefs.js").parent
    note = world.thunderbird.home.parent / "compatibility.ini"
    note.write_bytes((profile / note.name).read_bytes())
    shutil.rmtree(profile)
    monkeypatch.setattr(world.thunderbird.client, "COMPATIBILITY", note)
    events = world.open()
    assert (names(events), troubles(events)) == (PHASES, [])
    assert "scriptCache-current.bin" in before
    assert kept_scripts(world) == before  # else they were thrown away, or made anew
    facts = world.thunderbird.proof.facts()
    assert [key["secret"] for key in facts.keys if key["fingerprint"] == world.anna.fingerprint]
    assert world.thunderbird.proof.dialogs() == []
