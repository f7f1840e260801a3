"""What the mailbox is for: read and answer encrypted mail, in the real Thunderbird."""

from __future__ import annotations

import json

from demo.davserver import CALENDAR
from demo.mailserver import CORRESPONDENT
from demo.main import CONTACT, EVENT
from tests.machine import proofs
from tests.machine.conftest import NAME, SUBJECT, World


def test_open_makes_the_client_usable(opened: World) -> None:
    facts = opened.proof.facts(messages=1)
    assert [account["type"] for account in facts.accounts].count("imap") == 1
    assert facts.identity["address"] == "anna@kunde.test"
    assert not facts.offline
    assert not opened.proof.dialogs()


def test_encrypted_mail_is_shown_decrypted_and_verified(opened: World) -> None:
    shown = opened.proof.open(
        message_id=opened.letter, expect={"encrypted": "ok", "signed": "verified"}
    )
    assert opened.canary in shown.body
    assert (shown.encrypted, shown.signed) == ("ok", "verified")
    assert shown.subject == SUBJECT


def test_a_reply_is_signed_and_encrypted_by_itself(opened: World) -> None:
    composed = opened.proof.reply("Einverstanden.", message_id=opened.letter)
    assert composed.encrypt and composed.sign, composed
    # What counts is the server's copy: a slow machine may miss the window's own word.
    message = opened.server.wait_for_messages(CORRESPONDENT, 1, deadline_s=120)[-1]
    assert b"Einverstanden" not in message
    reading = opened.partner.read(message)
    assert reading.decrypted
    assert "Einverstanden" in reading.text
    assert (reading.signature, reading.signer) == ("good", opened.customer.fingerprint)


def test_calendar_and_address_book_are_there(opened: World) -> None:
    found = opened.proof.collections(
        entries=(EVENT, CONTACT, "Aus-dem-Thunderbird"),
        add_event={"calendar": "Termine", "summary": "Aus-dem-Thunderbird"},
    )
    assert [each["name"] for each in found.calendars] == ["Termine"]
    assert [each["name"] for each in found.address_books] == ["Kontakte"]
    opened.dav.wait_for(CALENDAR, "SUMMARY:Aus-dem-Thunderbird")
    assert not opened.proof.dialogs()


def test_the_mail_client_proves_its_keys(opened: World) -> None:
    proofs.keys_serve(opened, NAME)


def test_open_again_means_show_again(opened: World) -> None:
    assert json.loads(opened.open().stdout)["facts"]["already"] is True
    status = json.loads(opened.mailbox("status", NAME, "--json").stdout)
    assert status["state"] == "open"
    assert status["channel"]["state"] == "ready"


def test_run_passes_input_output_and_exit_code(opened: World) -> None:
    ran = opened.inside("sh", "-c", "cat; echo oops >&2; exit 7")
    assert (ran.returncode, ran.stderr.strip()) == (7, "oops")
    whole = bytes(range(256)) * 4096
    echoed = opened.mailbox("run", NAME, "--", "cat", input=whole)
    assert echoed.stdout == whole


def test_screenshot_shows_the_display(opened: World) -> None:
    picture = opened.session.root / "shot.png"
    opened.mailbox("screenshot", NAME, str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000
