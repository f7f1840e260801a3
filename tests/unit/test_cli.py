"""The command line: its help, its JSON, its exit codes, its errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from sandbox.cli import (
    certificates,
    changing,
    commands,
    correspondents,
    ending,
    image_commands,
    key_commands,
    making,
    onboarding,
    output,
    recovery_commands,
    wishes,
)
from sandbox.cli.answers import Answers
from sandbox.cli.app import cli
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import check_first, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.model.dav import Password
from sandbox.model.errors import Exit, MailboxError
from tests.unit.fakes import DAV_WORD, NAME, PASSWORD, World, make_house, make_wish

Run = Callable[..., Result]
GROUPS = ("image", "keys")
COMMANDS = [
    *((name,) for name in cli.commands if name not in GROUPS),
    *(("image", name) for name in image_commands.image.commands),
    *(("keys", name) for name in key_commands.keys.commands),
]
ON_ONE_NAME = [
    *(("open",), ("close",), ("status",), ("show",), ("edit",), ("repair",), ("log",)),
    *(
        ("password", "--password-stdin", "--offline"),
        ("run", "--", "id"),
        ("screenshot", "file.png"),
        ("shred", "--yes"),
    ),
]
GOOD = (
    *("--address", "anna@kunde.test", "--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test"),
    *("--password-stdin", "--offline", "--no-recovery-code"),
)


@pytest.fixture
def run(house: House, world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on a house of fakes, each time a new one on the same world."""

    def compose(progress: Any) -> House:
        from dataclasses import replace

        return replace(make_house(world), progress=progress)

    for module in (
        certificates,
        changing,
        commands,
        correspondents,
        ending,
        image_commands,
        making,
        recovery_commands,
    ):
        monkeypatch.setattr(module, "compose", compose)
    monkeypatch.setattr(output, "TERMINAL", str(world.root / "no-terminal"))

    def invoke(*arguments: str, input: str | bytes = "") -> Result:
        done = CliRunner().invoke(cli, list(arguments), input=input, prog_name="mailbox")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        assert "Traceback" not in done.output
        return done

    return invoke


@pytest.fixture
def onboarded(house: House) -> House:
    onboard(house, make_wish())
    return house


@pytest.fixture
def opened(onboarded: House) -> House:
    open_mailbox(onboarded, NAME, headless=True)
    return onboarded


def document(done: Result) -> Any:
    return json.loads(done.stdout)


def error_of(done: Result) -> dict[str, str]:
    said = document(done)
    assert said["ok"] is False
    assert set(said["error"]) == {"code", "brief", "details", "resolution"}
    found: dict[str, str] = said["error"]
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_teaches(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.exit_code == Exit.OK
    assert "Usage: mailbox" in done.stdout and "--json" in done.stdout
    summary = done.stdout.split("\n\n")[1].strip()
    assert summary.endswith((".", ")")) and len(summary) > 15


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does(command: tuple[str, ...]) -> None:
    found: Any = cli
    for name in command:
        found = found.commands[name]
    for option in found.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{command} {option.name}"


def test_the_issue_of_commands_is_complete() -> None:
    wanted = {"doctor", "image", "onboard", "open", "list", "status", "show", "run", "screenshot"}
    assert wanted | {"edit", "close", "shred", "certificate", "repair", "log", "completion"} <= set(
        cli.commands
    )
    assert {"build", "list", "verify", "remove"} <= set(image_commands.image.commands)


class TestOnboard:
    def test_by_flags(self, run: Run, world: World, house: House) -> None:
        done = run("onboard", NAME, *GOOD, "--json", input=f"{PASSWORD}\n")
        assert done.exit_code == Exit.OK, done.output
        said = document(done)
        assert said["ok"] is True and said["verb"] == "onboard" and said["name"] == NAME
        assert said["facts"]["servers_checked"] is False
        assert PASSWORD not in done.output
        assert PASSWORD in world.state["vault"].values()
        assert house.records.load(NAME).account.login == "anna@kunde.test"

    def test_all_keys_of_a_file_are_accepted_and_shown(
        self, run: Run, house: House, tmp_path: Path
    ) -> None:
        file = tmp_path / "all.asc"
        file.write_text(f"public {'C' * 40} c@p.test\npublic {'D' * 40} d@p.test")
        done = run("onboard", NAME, *GOOD, "--correspondent", str(file), input=f"{PASSWORD}\n")
        assert done.exit_code == Exit.OK, done.output
        known = [each.fingerprint for each in house.records.load(NAME).keys.correspondents]
        assert known == ["C" * 40, "D" * 40]
        assert all(each in done.stderr for each in known)

    DAV = ("--caldav", "https://dav.kunde.test/anna/work/", "--carddav", "dav.kunde.test")

    def test_calendars_are_found_and_written_down(
        self, run: Run, world: World, house: House
    ) -> None:
        asked = (*(each for each in GOOD if each != "--offline"), *self.DAV)
        login = ("--dav-login", "anna", "--dav-password-stdin")
        words = f"{PASSWORD}\n{DAV_WORD}\n"
        done = run("onboard", NAME, *asked, *login, "--json", input=words)
        assert done.exit_code == Exit.OK, done.output
        account = house.records.load(NAME).account
        assert [each.url for each in account.calendars] == ["https://dav.kunde.test/anna/work/"]
        assert [each.url for each in account.address_books] == ["https://dav.kunde.test/found/"]
        assert {each.login for each in account.collections} == {"anna"}
        assert account.has_dav_password and DAV_WORD in world.state["vault"].values()
        assert DAV_WORD not in done.output
        facts = document(done)["facts"]
        assert facts["address_books"] == ["https://dav.kunde.test/found/"]

    def test_without_another_password_the_mails_is_theirs(self, run: Run, house: House) -> None:
        asked = (*(each for each in GOOD if each != "--offline"), *self.DAV)
        assert run("onboard", NAME, *asked, input=f"{PASSWORD}\n").exit_code == Exit.OK
        assert not house.records.load(NAME).account.has_dav_password

    @pytest.mark.parametrize(
        ("said", "problem"),
        [
            (("--caldav", "dav.kunde.test"), "--caldav: with --offline give the whole URL"),
            (("--carddav", "http://dav.kunde.test/a/"), "does not begin with https://"),
            (("--caldav", "https://a.test/b/", "--caldav", "https://a.test/b/"), "there twice"),
            (("--dav-password-stdin",), "there is nothing that it opens"),
        ],
    )
    def test_what_is_wrong_with_a_calendar_is_said(
        self, run: Run, said: tuple[str, ...], problem: str
    ) -> None:
        error = error_of(run("onboard", NAME, *GOOD, *said, "--json", input=f"{PASSWORD}\nx\n"))
        assert error["code"] == "invalid-input" and problem in error["details"]

    def test_a_detour_may_lead_to_a_calendar(self, run: Run, house: House) -> None:
        detour = ("--connect-to", "dav.kunde.test:443:127.0.0.1:5232")
        said = (*GOOD, "--caldav", "https://dav.kunde.test/a/", *detour)
        assert run("onboard", NAME, *said, input=f"{PASSWORD}\n").exit_code == Exit.OK
        (calendar,) = house.records.load(NAME).account.calendars
        assert calendar.endpoint.target == ("127.0.0.1", 5232)

    def test_from_a_file_with_flags_before_it(self, run: Run, house: House, tmp_path: Path) -> None:
        file = tmp_path / "a.toml"
        file.write_text(
            'address = "anna@kunde.test"\nimap = "imap.kunde.test:143"\nsmtp = "smtp.kunde.test"\n'
            'size = "1G"\ncolour = "red"\nsignature = "Anna\\nKunde GmbH"\n'
        )
        done = run(
            *("onboard", NAME, "--from", str(file), "--size", "2G"),
            *("--password-stdin", "--offline", "--no-recovery-code"),
            input=PASSWORD,
        )
        assert done.exit_code == Exit.OK, done.output
        profile = house.records.load(NAME)
        assert profile.settings.volume_size == 2 * 1024**3
        assert profile.account.imap.port == 143 and profile.account.imap.security == "starttls"
        assert profile.account.signature == "Anna\nKunde GmbH"
        assert "not checked" in done.stderr

    def test_all_that_is_wrong_is_said_at_once(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        wrong = {
            "--address": "anna",
            "--imap": "127.0.0.1",
            "--smtp": "smtp.kunde.test:0",
            "--key": "ABCD",
            "--correspondent": "nobody",
            "--size": "1",
            "--colour": "pink",
            "--display-name": "a\nb",
            "--signature": "a\0b".replace("\0", "\x07"),
            "--template": "none",
            "--client": "Thunder Bird",
            "--ca": str(tmp_path / "none.pem"),
            "--connect-to": "x",
        }
        flags = [text for pair in wrong.items() for text in pair]
        done = run("onboard", "../x", *flags, "--offline", "--json")
        assert done.exit_code == Exit.USAGE
        error = error_of(done)
        assert error["code"] == "invalid-input"
        for place in ("NAME", *wrong):
            assert f"  {place}: " in error["details"], place
        assert world.state["vault"] == {}
        assert not (world.root / "config").exists() and not (world.root / "state").exists()

    @pytest.mark.parametrize(
        "content", ["address = 5", "unknown = 1", "=", 'connect_to = "x"', "generate_key = 1"]
    )
    def test_a_malformed_file_is_refused_with_its_place(
        self, run: Run, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "a.toml").write_text(content)
        done = run("onboard", NAME, "--from", str(tmp_path / "a.toml"), "--json")
        assert done.exit_code == Exit.USAGE
        assert error_of(done)["details"].strip()

    def test_a_file_that_is_missing_is_a_sentence(self, run: Run) -> None:
        done = run("onboard", NAME, "--from", "/nowhere", "--json")
        assert done.exit_code == Exit.USAGE and "--from" in error_of(done)["details"]

    @pytest.mark.parametrize("keys", [("--key", "A" * 40, "--generate-key")])
    def test_one_key_is_enough(self, run: Run, keys: tuple[str, ...]) -> None:
        done = run("onboard", NAME, *GOOD, *keys, "--json", input=PASSWORD)
        assert done.exit_code == Exit.USAGE and "only one of them" in error_of(done)["details"]

    def test_without_a_password_nothing_is_written(self, run: Run, world: World) -> None:
        flags = [flag for flag in GOOD if flag != "--password-stdin"]
        assert run("onboard", NAME, *flags).exit_code == Exit.USAGE
        assert run("onboard", NAME, *GOOD, input="").exit_code == Exit.USAGE
        assert run("onboard", NAME, *GOOD, input=b"\xff\n").exit_code == Exit.USAGE
        assert world.state["vault"] == {}

    def test_text_that_is_none_is_a_sentence(self, run: Run) -> None:
        for flag in ("--display-name", "--signature", "--login"):
            done = run("onboard", NAME, *GOOD, flag, "a\udcff", input=PASSWORD)
            assert done.exit_code == Exit.USAGE, flag

    def test_nobody_is_asked_for_servers_of_an_input_that_is_refused(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def discover(address: str) -> Answers:
            asked.append(address)
            return Answers(imap="imap.kunde.test", smtp="smtp.kunde.test")

        monkeypatch.setattr(wishes, "discoverer", lambda *_, **__: discover)
        address = ("--address", "anna@kunde.test", "--json")
        details = error_of(run("onboard", "a b", *address, "--colour", "nope"))["details"]
        assert [line.split(":")[0].strip() for line in details.splitlines()] == ["NAME", "--colour"]
        assert asked == []
        run("onboard", NAME, *address, "--password-stdin", input=f"{PASSWORD}\n")
        assert asked == ["anna@kunde.test"]

    def test_a_second_one_of_the_name_is_refused(self, run: Run, onboarded: House) -> None:
        done = run("onboard", NAME.upper(), *GOOD, "--json", input=PASSWORD)
        assert done.exit_code == Exit.EXISTS and error_of(done)["code"] == "profile-exists"


class TestExitCodes:
    @pytest.mark.parametrize(
        "command",
        ON_ONE_NAME,
        ids=" ".join,
    )
    def test_an_unknown_name_is_not_found(self, run: Run, command: tuple[str, ...]) -> None:
        verb, *rest = command
        done = run(verb, "--json", "nobody", *rest)
        assert done.exit_code == Exit.NOT_FOUND, done.output
        assert error_of(done)["code"] == "profile-unknown"

    @pytest.mark.parametrize(
        "command",
        ON_ONE_NAME,
        ids=" ".join,
    )
    @pytest.mark.parametrize("name", ["../x", "a/b", "x" * 300, "é"])
    def test_what_is_no_name_is_refused(
        self, run: Run, command: tuple[str, ...], name: str
    ) -> None:
        verb, *rest = command
        done = run(verb, "--json", name, *rest)
        assert done.exit_code in (Exit.USAGE, Exit.NOT_FOUND), done.output
        assert error_of(done)["brief"]

    def test_commands_used_wrongly(self, run: Run) -> None:
        for arguments in (
            ("close",),
            ("open",),
            ("nonsense",),
            ("completion", "tcsh"),
            ("run", "a"),
        ):
            assert run(*arguments).exit_code == Exit.USAGE

    def test_errors_are_a_sentence_on_standard_error(self, run: Run) -> None:
        done = run("open", "nobody")
        assert done.stdout == ""
        first, *more = done.stderr.splitlines()
        assert first == "Error: There is no mailbox named 'nobody'."
        assert more == ["`mailbox list` shows those there are; `mailbox onboard` makes a new one."]

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, click.Abort])
    def test_a_stop_is_told_apart(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
    ) -> None:
        def stopped(_progress: object) -> None:
            raise stop

        monkeypatch.setattr(commands, "compose", stopped)
        done = run("list", "--json")
        assert done.exit_code == Exit.INTERRUPTED
        assert error_of(done)["code"] == "interrupted"

    @pytest.mark.parametrize("code", list(Exit))
    def test_the_exit_code_is_the_errors_own(
        self, run: Run, onboarded: House, world: World, code: Exit
    ) -> None:
        world.faults["images.newest"] = MailboxError("No.", code="no", exit_code=code)
        assert run("open", NAME, "--headless").exit_code == code


class TestVerbs:
    def test_a_day(self, run: Run, onboarded: House, world: World) -> None:
        done = run("open", NAME, "--headless", "--json")
        assert done.exit_code == Exit.OK and document(done)["facts"]["already"] is False
        assert document(run("open", NAME, "--headless", "--json"))["facts"]["already"] is True
        (seen,) = document(run("list", "--json"))
        assert seen["state"] == "open" and seen["address"] == "anna@kunde.test"
        assert document(run("close", NAME, "--json"))["facts"]["clean"] is True
        assert run("close", "--all").exit_code == Exit.OK
        done = run("shred", NAME, "--yes", "--json")
        assert done.exit_code == Exit.OK and set(done_seconds(done)) >= {"keyring", "header"}
        assert document(run("list", "--json")) == []
        assert run("shred", NAME, "--yes").exit_code == Exit.NOT_FOUND
        assert "shredded on" in run("open", NAME).stderr

    def test_json_is_one_document_whatever_happens_around_it(
        self, run: Run, onboarded: House, world: World
    ) -> None:
        world.guest.warnings = (("code", "message"),)
        done = run("open", NAME, "--headless", "--json", "-v")
        assert document(done)["facts"]["warnings"] == [{"code": "code", "message": "message"}]
        assert "Warning" in done.stderr

    def test_a_list_for_people(self, run: Run, onboarded: House) -> None:
        assert "onboard" in run("list").stdout or NAME in run("list").stdout
        onboarded.paths.profile("broken").write_text("=")
        done = run("list")
        assert done.exit_code == Exit.OK
        heading, broken, fine = done.stdout.splitlines()
        assert heading.split()[:2] == ["NAME", "STATE"]
        assert broken.split()[:2] == ["broken", "broken"] and fine.split()[:2] == [NAME, "closed"]
        assert "broken: " in done.stderr

    def test_status_and_show(self, run: Run, onboarded: House) -> None:
        assert document(run("status", NAME, "--json"))["state"] == "closed"
        assert "anna@kunde.test" in run("status", NAME.upper()).stdout
        shown = document(run("show", NAME, "--json"))
        assert shown["account"]["imap"]["host"] == "imap.kunde.test"
        assert PASSWORD not in run("show", NAME).output

    def test_shred_wants_the_name_again(self, run: Run, onboarded: House) -> None:
        for typed in ("", "\n", f"{NAME.lower()}\n", "yes\n"):
            done = run("shred", NAME, "--json", input=typed)
            assert done.exit_code == Exit.USAGE and error_of(done)["code"] == "not-confirmed"
        assert onboarded.records.names() == [NAME]
        assert run("shred", NAME, input=f"{NAME}\n").exit_code == Exit.OK
        assert onboarded.records.names() == []

    def test_shred_lists_every_copy_before_it_asks(self, run: Run, onboarded: House) -> None:
        done = run("shred", NAME, input="no\n")
        destroys, _, cannot = done.stderr.partition("It cannot destroy:")
        assert "keyring:volume-key" in destroys and "keyslots" in destroys
        assert "provider-mail" in cannot and "backup:Timeshift" in cannot
        assert done.exit_code == Exit.USAGE and onboarded.records.names() == [NAME]

    def test_what_is_confirmed_must_be_a_copy_out_of_reach(
        self, run: Run, onboarded: House
    ) -> None:
        done = run("shred", NAME, "--yes", "--confirm", "volume", "--confirm", "x", "--json")
        assert "'volume' is none of: " in error_of(done)["details"]
        assert onboarded.records.names() == [NAME]
        said = ("--because", "Vertragsende", "--ordered-by", "Anna", "--confirm", "provider-mail")
        facts = document(run("shred", NAME, "--yes", "--json", *said))["facts"]
        assert "provider-mail" not in facts["open"] and "provider-password" in facts["open"]
        assert Path(facts["certificate"]).is_file()
        assert "(Vertragsende)" in run("open", NAME).stderr

    @pytest.mark.parametrize(
        ("command", "steps"),
        [
            (("open", NAME), ["verify", "check", "start", "warden", "gather"]),
            (("shred", NAME), ["close", "tombstone", "keyring", "header", "keys", "volume"]),
            (("retain", NAME, "--until", "2999-01-01", "--because", "law"), ["close", "seal"]),
            (("onboard", "other", *GOOD, "--no-recovery-code"), ["secrets", "keys", "volume"]),
            (("image", "build"), ["leftovers", "make", "place"]),
            (("header-backup", NAME), ["backup"]),
            (("header-backup", NAME, "--remove"), ["remove"]),
            (("recovery-code", NAME, "--replace"), ["keyslot", "code", "old"]),
        ],
    )
    def test_a_dry_run_shows_the_steps_and_does_nothing(
        self, run: Run, onboarded: House, world: World, command: tuple[str, ...], steps: list[str]
    ) -> None:
        def files_now() -> dict[Path, bytes]:
            return {p: p.read_bytes() for p in world.root.rglob("*") if p.is_file()}

        before = files_now()
        said = document(run(*command, "--dry-run", "--json", input=PASSWORD))
        assert said["dry_run"] is True and said["verb"].startswith(command[0])
        assert [step["id"] for step in said["steps"]][: len(steps)] == steps
        assert all(step["title"] and step["reason"] for step in said["steps"])
        text = run(*command, "--dry-run", input=PASSWORD).stdout
        assert "nothing was done" in text and f"1. {said['steps'][0]['title']}" in text
        assert files_now() == before

    def test_a_dry_run_tells_what_is_unfinished(self, run: Run, opened: House) -> None:
        assert "do nothing" not in run("close", NAME, "--dry-run").stdout
        assert "showing" in run("open", NAME, "--dry-run").stdout.lower()
        assert document(run("repair", "--dry-run", "--json"))["plans"] == []
        run("close", NAME)
        assert "would do nothing" in run("close", NAME, "--dry-run").stdout
        opened.journal(NAME).append("open", "begin", "9")
        for command in ("open", "retain", "repair"):
            more = ("--until", "2999-01-01", "--because", "x") if command == "retain" else ()
            said = run(command, NAME, "--dry-run", *more).stdout
            assert f"Undoing the earlier `mailbox open {NAME}`" in said
        assert opened.journal(NAME).read().pending() is not None

    def test_a_dry_run_of_suspending_and_switching(self, run: Run, opened: House) -> None:
        said = document(run("suspend", NAME, "--dry-run", "--json"))
        assert [step["id"] for step in said["steps"]][:3] == ["room", "prepare", "warden"]
        (only,) = document(run("switch", NAME, "--dry-run", "--json"))["plans"]
        assert (only["verb"], only["name"]) == ("open", NAME)
        for refused in (("recovery-code",), ("header-backup",)):
            assert run(*refused, NAME, "--dry-run").exit_code == Exit.BUSY
        run("close", NAME)
        assert run("suspend", NAME, "--dry-run").exit_code == Exit.MACHINE

    def test_what_is_kept_is_closed_and_reminded_of(self, run: Run, opened: House) -> None:
        for wrong in (("--until", "soon"), ("--until", "2000-01-01"), ("--because", "x")):
            assert run("retain", NAME, "--because", "tax", *wrong).exit_code == Exit.USAGE
        assert run("shred", NAME, "--retain-until", "2999-01-01").exit_code == Exit.USAGE
        assert run("shred", NAME, "--retain-until", "2998-01-01", "--because", "tax").exit_code == 0
        assert run("retain", NAME, "--until", "2999-01-01", "--because", "law").exit_code == 0
        listed = run("list")
        assert "retained" in listed.stdout and "kept until 2999-01-01: law" in listed.stderr
        assert document(run("list", "--json"))[0]["retained_until"] == "2999-01-01"
        for refused in (run("open", NAME, "--json"), run("shred", NAME, "--yes", "--json")):
            assert error_of(refused)["code"] == "retained"
            assert refused.exit_code == Exit.BUSY
        done = run("shred", NAME, "--yes", "--override-retention", "a court's order")
        assert done.exit_code == 0
        text = run("certificate", NAME).stdout
        assert "a court's order" in text and "kept until 2998-01-01: tax" in text

    def test_certificates_are_written_and_verified(
        self, run: Run, onboarded: House, tmp_path: Path
    ) -> None:
        assert error_of(run("certificate", NAME, "--json"))["code"] == "not-shredded"
        run("shred", NAME, "--yes")
        assert "Postfachs" in run("certificate", NAME, "--language", "de").stdout
        kept = document(run("certificate", NAME, "--json"))
        assert json.loads(run("certificate", NAME, "--format", "json").stdout) == kept
        out = tmp_path / "c.json"
        assert run("certificate", NAME, "--format", "json", "--out", str(out)).exit_code == 0
        facts = document(run("certificate", "verify", str(out), "--json"))["facts"]
        assert (facts["noted"], facts["signature"], facts["content"]) == (True, "none", "whole")
        out.write_bytes(out.read_bytes().replace(b"deleted", b"delated", 1))
        done = run("certificate", "verify", str(out), "--json")
        assert error_of(done)["code"] == "certificate-changed"
        assert done.exit_code == Exit.DAMAGED

    @pytest.mark.parametrize(
        "arguments", [("x", "file"), (NAME, "--format", "pdf"), (NAME, "--sign-with", "ABCD")]
    )
    def test_certificates_asked_for_wrongly(
        self, run: Run, onboarded: House, arguments: tuple[str, ...]
    ) -> None:
        run("shred", NAME, "--yes")
        assert run("certificate", *arguments).exit_code == Exit.USAGE

    def test_close_all_goes_on_after_an_error(self, run: Run, opened: House, world: World) -> None:
        onboard(opened, make_wish("aaa"))
        open_mailbox(opened, "aaa", headless=True)
        opened.paths.journal("aaa").unlink()
        opened.paths.journal("aaa").mkdir()
        assert run("close", "--all").exit_code == Exit.FAILED
        assert list(world.state["machines"]) == [opened.domain("aaa")]
        done = run("close", "--all", "--json")
        assert done.exit_code == Exit.FAILED and document(done)["ok"] is False
        failed, good = document(done)["results"]
        assert (failed["name"], failed["error"]["code"]) == ("aaa", "file-error")
        assert (good["name"], good["facts"]["already"]) == (NAME, True)

    def test_close_all_finds_machines_without_a_profile(
        self, run: Run, opened: House, world: World
    ) -> None:
        onboard(opened, make_wish("broken"))
        open_mailbox(opened, "broken", headless=True)
        opened.paths.profile("broken").write_text("name = 5")
        opened.paths.profile(NAME).unlink()
        assert run("close", "--all").exit_code == Exit.OK
        assert world.state["machines"] == {} and world.state["wardens"] == {}

    def test_a_machine_whose_profile_is_gone_is_closed_by_name(
        self, run: Run, opened: House, world: World
    ) -> None:
        opened.paths.profile(NAME).unlink()
        assert document(run("close", NAME.lower(), "--json"))["name"] == NAME
        assert world.state["machines"] == {}

    def test_run_passes_output_and_status_through(self, run: Run, opened: House) -> None:
        done = run("run", NAME, "--root", "--", "ls", "-l")
        assert done.stdout == "root: ls -l\n" and done.exit_code == 0
        opened.wardens.kill(opened.paths.control_socket(NAME))
        done = run("run", "--json", NAME, "--", "id")
        assert done.exit_code == Exit.MACHINE and error_of(done)["code"] == "machine-closed"

    def test_run_reports_output_as_json(self, run: Run, opened: House) -> None:
        said = document(run("run", NAME, "--json", "--", "ls", "-l"))
        assert said["facts"] == {
            "exit_code": 0,
            "stdout": "mail-user: ls -l\n",
            "stderr": "",
            "cut": False,
        }

    def test_a_screenshot_is_a_picture(self, run: Run, opened: House, tmp_path: Path) -> None:
        file = tmp_path / "a.png"
        assert run("screenshot", NAME, str(file)).exit_code == Exit.OK
        assert file.read_bytes().startswith(b"\x89PNG")
        done = run("screenshot", NAME, str(tmp_path / "no/folder.png"))
        assert done.exit_code == Exit.FAILED and "could not be used" in done.stderr

    def test_repair_says_what_it_did(self, run: Run, onboarded: House) -> None:
        assert "Nothing" in run("repair").stdout
        assert document(run("repair", "--json")) == {"ok": True, "verb": "repair", "results": []}
        onboarded.journal(NAME).append("open", "begin", "1")
        (done,) = document(run("repair", "--json"))["results"]
        assert done["facts"]["repaired"] is True
        assert document(run("repair", NAME, "--json"))["facts"]["repaired"] is False

    def test_the_journal_is_shown_and_a_broken_chain_said(self, run: Run, onboarded: House) -> None:
        assert "onboard" in run("log", NAME).stdout
        path = onboarded.paths.journal(NAME)
        path.write_bytes(path.read_bytes().replace(b'"begin"', b'"began"'))
        assert "broken at line 2" in run("log", NAME).stderr
        assert document(run("log", NAME, "--json"))["broken_at"] == 2


class TestUsage:
    @pytest.mark.parametrize(
        "wrong",
        [
            ("open", "--json"),
            ("close", "--json"),
            ("close", "--all", NAME, "--json"),
            ("list", "--json", "--wat"),
            ("image", "nonsense", "--json"),
            ("nonsense", "--json"),
            ("run", NAME, "--json"),
            ("completion", "tcsh", "--json"),
        ],
    )
    def test_wrong_usage_is_json_where_json_is_asked_for(
        self, run: Run, wrong: tuple[str, ...]
    ) -> None:
        done = run(*wrong)
        assert done.exit_code == Exit.USAGE and error_of(done)["code"] == "usage"
        assert done.stderr == ""

    def test_wrong_usage_is_text_otherwise(self, run: Run) -> None:
        done = run("run", "--", NAME, "--json")
        assert done.exit_code != Exit.OK and done.stdout == ""
        done = run("open")
        assert done.exit_code == Exit.USAGE and "Missing argument 'NAME'" in done.stderr


class TestImages:
    @pytest.fixture
    def damaged(self, house: House) -> Path:
        folder = house.paths.images / "thunderbird-0123456789abcdef"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{")
        return folder

    def test_a_damaged_image_is_listed(self, run: Run, damaged: Path) -> None:
        (said,) = document(run("image", "list", "--json"))
        assert said["id"] == "0123456789abcdef" and "manifest" in said["damaged"]
        done = run("image", "list")
        assert "damaged" in done.stdout and "manifest" in done.stderr

    def test_verify_names_it_among_the_others(self, run: Run, damaged: Path) -> None:
        done = run("image", "verify", "--json")
        assert done.exit_code == Exit.DAMAGED
        (said,) = document(done)["results"]
        assert said["name"] == damaged.name and said["error"]["code"] == "image-damaged"

    def test_it_can_be_removed(self, run: Run, damaged: Path) -> None:
        assert run("image", "remove", "0123").exit_code == Exit.OK
        assert not damaged.exists()
        assert run("image", "remove", "0123").exit_code == Exit.NOT_FOUND


def done_seconds(done: Result) -> dict[str, float]:
    found: dict[str, float] = document(done)["facts"]["seconds"]
    return found


class TestEdit:
    @pytest.fixture
    def edit(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
        def with_editor(script: str) -> Result:
            editor = tmp_path / "editor"
            editor.write_text(f"#!/bin/sh\n{script}\n")
            editor.chmod(0o755)
            monkeypatch.setenv("VISUAL", str(editor))
            return run("edit", NAME, "--json")

        return with_editor

    def drafts(self, house: House) -> list[Path]:
        return list(house.paths.profiles.glob(".*"))

    def test_a_change_is_taken(self, edit: Run, onboarded: House) -> None:
        done = edit("""sed -i 's/display_name = .*/display_name = "Änne"/' "$1" """)
        assert done.exit_code == Exit.OK, done.output
        assert onboarded.records.load(NAME).account.display_name == "Änne"
        assert self.drafts(onboarded) == []

    CALENDAR = (
        r"""sed -i 's#^calendars = .*#calendars = [{url = "https://dav.kunde.test/a/", """
        r"""password = "own"}]#' "$1" """
    )

    def test_a_calendar_with_a_password_of_its_own(
        self, edit: Run, run: Run, onboarded: House, world: World
    ) -> None:
        done = edit(self.CALENDAR)
        assert done.exit_code == Exit.OK, done.output
        assert "--dav-password-stdin" in done.stderr
        given = run("edit", NAME, "--dav-password-stdin", "--json", input=f"{DAV_WORD}\n")
        assert given.exit_code == Exit.OK and DAV_WORD not in given.output
        assert DAV_WORD in world.state["vault"].values()
        assert edit("""sed -i 's/"own"/"mail"/' "$1" """).exit_code == Exit.OK
        assert DAV_WORD not in world.state["vault"].values()

    def test_a_password_that_opens_nothing_is_not_stored(
        self, run: Run, onboarded: House, world: World
    ) -> None:
        done = run("edit", NAME, "--dav-password-stdin", "--json", input=f"{DAV_WORD}\n")
        assert error_of(done)["code"] == "invalid-input"
        assert DAV_WORD not in world.state["vault"].values()

    def test_nothing_changed_is_said(self, edit: Run, onboarded: House) -> None:
        assert document(edit("true"))["facts"] == {"changed": False}
        assert self.drafts(onboarded) == []

    @pytest.mark.parametrize(
        "script",
        [
            """echo '=' > "$1" """,
            """sed -i 's/^name = .*/name = "other"/' "$1" """,
            """sed -i 's/^id = .*/id = "00000000-0000-4000-8000-000000000001"/' "$1" """,
            """sed -i 's/^size = .*/size = "1T"/' "$1" """,
            """echo x > "$1"; false """,
        ],
    )
    def test_the_old_one_stays_and_the_draft_is_kept(
        self, edit: Run, onboarded: House, script: str
    ) -> None:
        before = onboarded.records.load(NAME)
        error = error_of(edit(script))
        (draft,) = self.drafts(onboarded)
        assert str(draft) in error["resolution"]
        assert onboarded.records.load(NAME) == before


class TestPassword:
    NEW = "the-next-s3cret"

    def test_from_a_pipe(self, run: Run, opened: House, world: World) -> None:
        world.passwords[Password.MAIL] = self.NEW
        done = run("password", NAME, "--password-stdin", "--json", input=f"{self.NEW}\n")
        assert done.exit_code == Exit.OK, done.output
        facts = document(done)["facts"]
        assert facts["changed"] == ["mail-password"] and facts["handed"]
        assert self.NEW in world.state["vault"].values() and self.NEW not in done.output

    def test_that_it_was_not_checked_is_said(self, run: Run, onboarded: House) -> None:
        done = run("password", NAME, "--password-stdin", "--offline", input=f"{self.NEW}\n")
        assert done.exit_code == Exit.OK and "not checked" in done.stderr

    def test_one_that_is_refused(self, run: Run, onboarded: House, world: World) -> None:
        done = run("password", NAME, "--password-stdin", "--json", input=f"{self.NEW}\n")
        assert error_of(done)["code"] == "login-refused" and done.exit_code == Exit.SERVER
        assert PASSWORD in world.state["vault"].values()

    def test_a_dry_run_does_nothing(self, run: Run, opened: House, world: World) -> None:
        before = world.state["vault"]
        arguments = ("password", NAME, "--password-stdin", "--dry-run", "--json")
        said = document(run(*arguments, input=f"{self.NEW}\n"))
        assert [step["id"] for step in said["steps"]] == ["secret", "hand"]
        assert world.state["vault"] == before

    @pytest.mark.parametrize(
        ("said", "given", "code"),
        [
            ((), "", "password-missing"),
            (("--password-stdin",), "\n", "invalid-input"),
            (("--dav-password-stdin",), "x\n", "invalid-input"),
        ],
    )
    def test_what_cannot_be_stored(
        self, run: Run, onboarded: House, said: tuple[str, ...], given: str, code: str
    ) -> None:
        done = run("password", NAME, *said, "--json", input=given)
        assert error_of(done)["code"] == code and done.exit_code == Exit.USAGE


class TestQuestions:
    """What a person is asked; the terminal itself is click's business."""

    def answers(self, monkeypatch: pytest.MonkeyPatch, *said: str) -> Answers:
        left = iter(said)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: next(left))
        made = onboarding.ask_missing(Answers(), None)
        assert next(left, None) is None
        return made

    def test_few_questions_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = self.answers(
            monkeypatch, "a@kunde.test", "Anna", "i.kunde.test", "s.kunde.test", "new"
        )
        assert made == Answers(
            address="a@kunde.test",
            display_name="Anna",
            imap="i.kunde.test",
            smtp="s.kunde.test",
            generate_key=True,
        )

    def test_nothing_is_asked_for_a_name_that_cannot_be(
        self, onboarded: House, world: World
    ) -> None:
        def code(name: str) -> str:
            with pytest.raises(MailboxError) as refused:
                check_first(onboarded, name, reuse_name=False)
            return refused.value.code

        assert code(NAME.lower()) == "profile-exists"
        assert code("a b") == "invalid-input"
        world.faults["vault.check"] = MailboxError("No keyring.", code="keyring-missing")
        assert code("new") == "keyring-missing"
        world.faults = {"machines.states": MailboxError("libvirt is away.")}
        check_first(onboarded, "new", reuse_name=False)
        assert "cannot be opened" in world.warned[-1]

    def test_what_is_not_valid_is_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = self.answers(
            *(monkeypatch, "anna", "a@kunde.test", "", "127.0.0.1", "i.kunde.test"),
            *("s.kunde.test:0", "s.kunde.test", "ABCD", "A" * 40),
        )
        assert (made.imap, made.smtp, made.key) == ("i.kunde.test", "s.kunde.test", "A" * 40)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_print(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == Exit.OK and "_MAILBOX_COMPLETE" in done.stdout


def mailbox(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from sandbox.cli.app import main; main()", *arguments],
        env={"PATH": os.environ["PATH"], "MAILBOX_HOME": str(home), "HOME": str(home)}
        | environment,
        cwd=Path(__file__).parents[2],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_real_process_writes_nothing_for_a_bad_input(tmp_path: Path) -> None:
    done = mailbox(tmp_path / "h", "onboard", "a b", "--offline", "--address", "x", "--json")
    assert done.returncode == Exit.USAGE
    assert json.loads(done.stdout)["error"]["code"] == "invalid-input"
    assert not (tmp_path / "h").exists()


def test_names_are_completed(tmp_path: Path) -> None:
    profiles = tmp_path / "config" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "clientA.toml").touch()
    done = mailbox(
        tmp_path, _MAILBOX_COMPLETE="bash_complete", COMP_WORDS="mailbox open c", COMP_CWORD="2"
    )
    assert "clientA" in done.stdout


def test_a_home_that_is_too_deep_is_a_sentence(tmp_path: Path) -> None:
    done = mailbox(tmp_path / ("x" * 100), "list")
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
