"""Codes made anew, and mailboxes brought back, on fakes: what is kept, asked, said and refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sandbox.cli import making, output, recovery_commands
from sandbox.cli.app import cli
from sandbox.lifecycle.close import close
from sandbox.lifecycle.codes import renew_code
from sandbox.lifecycle.header import back_up, recorded_backup
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.recover import Means, recover
from sandbox.lifecycle.settle import repair
from sandbox.lifecycle.shred import shred
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.recovery import new_code
from sandbox.model.secrets import ITEMS, KEY_PASSPHRASE, MAIL_PASSWORD, VOLUME_KEY
from tests.unit.fake_luks import PAYLOAD
from tests.unit.fakes import BERT, NAME, OWN, PASSWORD, World, mails, make_house, make_wish, opens

Run = Callable[..., Result]


@pytest.fixture
def codes() -> list[str]:
    return []


@pytest.fixture
def used(house: House, codes: list[str]) -> House:
    """A mailbox with mail on its volume."""
    onboard(house, make_wish(hand_over=codes.append))
    open_mailbox(house, NAME, headless=True)
    close(house, NAME)
    return house


@pytest.fixture
def volume(house: House) -> Path:
    return house.paths.volume(NAME)


def lose(house: House, *kinds: str) -> None:
    identity = house.records.load(NAME).id
    for kind in kinds or ITEMS:
        house.vault.delete(identity, kind)


def means(code: str, **changes: Any) -> Means:
    return Means(code, **{"password": lambda: PASSWORD} | changes)


def never() -> str:
    raise AssertionError("nobody need be asked")


def refusal(action: Callable[[], object], code: str) -> MailboxError:
    with pytest.raises(MailboxError) as refused:
        action()
    assert refused.value.code == code, refused.value.brief
    assert refused.value.resolution and refused.value.brief.endswith(".")
    return refused.value


class TestNewCode:
    def test_the_new_one_opens_and_the_old_one_does_not(
        self, used: House, volume: Path, codes: list[str]
    ) -> None:
        result = renew_code(used, NAME, codes.append, replace=True)
        old, new = codes
        assert opens(volume, new.encode()) and not opens(volume, old.encode())
        assert used.keyslots.active(volume) == (0, 2) and result.facts["killed"] == [1]
        renew_code(used, NAME, codes.append, replace=True)
        assert used.keyslots.active(volume) == (0, 1)
        open_mailbox(used, NAME, headless=True)
        assert mails(volume) == 2

    def test_one_that_is_there_is_not_replaced_silently(
        self, used: House, volume: Path, codes: list[str]
    ) -> None:
        before = volume.read_bytes()
        action = lambda: renew_code(used, NAME, codes.append, replace=False)  # noqa: E731
        assert refusal(action, "recovery-code-exists").exit_code == Exit.EXISTS
        assert volume.read_bytes() == before and len(codes) == 1

    def test_where_there_is_none_one_is_made(
        self, house: House, volume: Path, codes: list[str]
    ) -> None:
        onboard(house, make_wish(hand_over=None))
        renew_code(house, NAME, codes.append, replace=False)
        assert opens(volume, codes[0].encode())

    def test_an_open_mailbox_is_refused(self, used: House, codes: list[str]) -> None:
        open_mailbox(used, NAME, headless=True)
        refusal(lambda: renew_code(used, NAME, codes.append, replace=True), "mailbox-open")

    def test_a_code_that_nobody_took_does_not_count(
        self, used: House, volume: Path, codes: list[str], world: World
    ) -> None:
        def fail(_code: str) -> None:
            raise MailboxError("The paper is full.", code="disk-full")

        with pytest.raises(MailboxError):
            renew_code(used, NAME, fail, replace=True)
        assert used.keyslots.active(volume) == (0, 1) and opens(volume, codes[0].encode())
        assert used.journal(NAME).read().pending() is None
        assert any("as before" in text for text in world.warned)

    def test_the_journal_has_the_keyslots_and_no_code(self, used: House, codes: list[str]) -> None:
        renew_code(used, NAME, codes.append, replace=True)
        text = used.paths.journal(NAME).read_text()
        assert '"keyslot": 2' in text and '"killed": [1]' in text
        assert not any(code in text or code.replace("-", "") in text for code in codes)


class TestRecover:
    def test_a_lost_keyring(self, used: House, volume: Path, codes: list[str]) -> None:
        identity = used.records.load(NAME).id
        old = (used.vault.get(identity, VOLUME_KEY) or "").encode()
        lose(used)
        refusal(lambda: open_mailbox(used, NAME, headless=True), "keyring-item-missing")
        result = recover(used, NAME, means(codes[0]))
        assert result.facts["keyslot"] and result.facts["fingerprint"] == OWN
        assert not opens(volume, old) and opens(volume, codes[0].encode())
        assert used.keyslots.active(volume) == (0, 1)
        open_mailbox(used, NAME, headless=True)
        assert mails(volume) == 2
        after = used.records.load(NAME)
        assert [each.fingerprint for each in after.keys.correspondents] == [BERT]
        assert sorted(path.name for path in used.paths.keys.iterdir()) == [NAME]

    def test_one_that_lacks_nothing_stays_as_it_is(
        self, used: House, volume: Path, codes: list[str]
    ) -> None:
        before = volume.read_bytes()
        result = recover(used, NAME, means(codes[0], password=never))
        assert result.facts["already"] and volume.read_bytes() == before

    def test_what_the_keyring_still_has_is_kept(
        self, used: House, volume: Path, codes: list[str]
    ) -> None:
        """A key that does not fit may be another copy's: it is not overwritten."""
        identity = used.records.load(NAME).id
        used.vault.put(identity, VOLUME_KEY, "of another copy")
        used.vault.put(identity, MAIL_PASSWORD, "kept")
        recover(used, NAME, means(codes[0], password=never))
        assert used.vault.get(identity, VOLUME_KEY) == "of another copy"
        assert opens(volume, b"of another copy")

    @pytest.mark.parametrize("kind", ITEMS)
    def test_each_secret_alone(self, used: House, codes: list[str], kind: str) -> None:
        lose(used, kind)
        result = recover(used, NAME, means(codes[0]))
        assert result.facts["secrets"] == [kind]
        assert result.facts["keyslot"] == (kind == VOLUME_KEY)
        open_mailbox(used, NAME, headless=True)

    def test_a_wrong_code_changes_nothing(self, used: House, volume: Path) -> None:
        before = volume.read_bytes()
        lose(used)
        refusal(lambda: recover(used, NAME, means(new_code())), "recovery-code-wrong")
        assert volume.read_bytes() == before

    def test_a_key_that_nobody_has_any_more_is_said_before_anything_is_done(
        self, used: House, volume: Path, codes: list[str], world: World
    ) -> None:
        before = volume.read_bytes()
        lose(used)
        del world.keys[OWN]
        error = refusal(lambda: recover(used, NAME, means(codes[0])), "key-not-found")
        assert "--without-key" in error.resolution and "--key-file" in error.resolution
        assert volume.read_bytes() == before and world.state["vault"] == {}
        result = recover(used, NAME, means(codes[0], without_key=True))
        assert result.facts["key_lost"] and used.records.load(NAME).keys.fingerprint is None
        open_mailbox(used, NAME, headless=True)

    def test_the_key_may_come_from_a_file(
        self, used: House, codes: list[str], world: World
    ) -> None:
        lose(used, KEY_PASSPHRASE)
        del world.keys[OWN]
        file = f"secret {OWN} anna@kunde.test".encode()
        recover(used, NAME, means(codes[0], key=KeyChoice(file=file)))
        open_mailbox(used, NAME, headless=True)

    def test_a_correspondent_whom_nobody_knows_is_said(
        self, used: House, codes: list[str], world: World
    ) -> None:
        shutil.rmtree(used.paths.gnupg(NAME))
        del world.keys[BERT]
        recover(used, NAME, means(codes[0], password=never))
        assert used.records.load(NAME).keys.correspondents == ()
        assert any(BERT in text for text in world.warned)


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    def compose(progress: Any) -> House:
        return replace(make_house(world), progress=progress)

    for module in (making, recovery_commands):
        monkeypatch.setattr(module, "compose", compose)
    monkeypatch.setattr(output, "TERMINAL", str(world.root / "tty"))

    def invoke(*arguments: str, input: str = "") -> Result:
        done = CliRunner().invoke(cli, [*arguments, "--json"], input=input, prog_name="mailbox")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done

    return invoke


def error_of(done: Result) -> str:
    return str(json.loads(done.stdout)["error"]["code"])


class TestCommands:
    def test_code_and_password_come_through_one_pipe(
        self, run: Run, used: House, codes: list[str]
    ) -> None:
        lose(used)
        typed = codes[0].lower().replace("-", " ")
        both = f"{typed}\n{PASSWORD}\n"
        done = run("recover", NAME, "--code-stdin", "--password-stdin", input=both)
        assert done.exit_code == Exit.OK, done.output
        identity = used.records.load(NAME).id
        assert used.vault.get(identity, MAIL_PASSWORD) == PASSWORD
        assert codes[0] not in done.output and PASSWORD not in done.output

    def test_a_typing_error_costs_no_time(
        self, run: Run, used: House, codes: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sandbox.host import luks

        monkeypatch.setattr(luks, "find_slot", lambda *_: pytest.fail("the PBKDF was asked"))
        wrong = ("0" if codes[0][0] != "0" else "1") + codes[0][1:]
        done = run("recover", NAME, "--code-stdin", input=wrong)
        assert done.exit_code == Exit.USAGE and error_of(done) == "recovery-code-mistyped"
        assert "group 1 of 7" in done.stdout and wrong not in done.stdout
        assert error_of(run("recover", NAME)) == "recovery-code-missing"

    def test_a_new_code_goes_where_it_is_told(
        self, run: Run, used: House, volume: Path, tmp_path: Path
    ) -> None:
        assert error_of(run("recovery-code", NAME, "--replace")) == "recovery-code-unseen"
        assert error_of(run("recovery-code", NAME, "--recovery-code-to", "2")) == (
            "recovery-code-exists"
        )
        paper = tmp_path / "paper"
        done = run("recovery-code", NAME, "--replace", "--recovery-code-to", str(paper))
        assert done.exit_code == Exit.OK, done.output
        assert opens(volume, paper.read_text().strip().encode())


class TestAnotherComputer:
    @pytest.fixture
    def stick(self, used: House, volume: Path, tmp_path: Path) -> Path:
        """What was taken along; the old computer is gone."""
        stick = tmp_path / "stick"
        stick.mkdir()
        shutil.copy(volume, stick / "a.luks")
        shutil.copy(used.paths.profile(NAME), stick / "a.toml")
        lose(used)
        for folder in ("config", "data", "state"):
            shutil.rmtree(tmp_path / folder)
        return stick

    def test_from_volume_profile_and_code(
        self, run: Run, house: House, volume: Path, stick: Path, codes: list[str]
    ) -> None:
        before = (stick / "a.luks").read_bytes()
        done = run(
            *("recover", NAME, "--volume", str(stick / "a.luks"), "--offline"),
            *("--profile", str(stick / "a.toml"), "--code-stdin", "--password-stdin"),
            input=f"{codes[0]}\n{PASSWORD}\n",
        )
        assert done.exit_code == Exit.OK, done.output
        assert json.loads(done.stdout)["verb"] == "recover"
        assert (stick / "a.luks").read_bytes() == before
        profile = house.records.load(NAME)
        assert profile.keys.fingerprint == OWN and len(profile.keys.correspondents) == 1
        assert opens(volume, codes[0].encode())
        open_mailbox(house, NAME, headless=True)
        assert mails(volume) == 2

    def test_from_volume_and_code_alone(
        self, run: Run, house: House, volume: Path, stick: Path, codes: list[str]
    ) -> None:
        done = run(
            *("recover", "other", "--volume", str(stick / "a.luks"), "--offline"),
            *("--address", "anna@kunde.test", "--imap", "imap.kunde.test"),
            *("--smtp", "smtp.kunde.test", "--code-stdin", "--password-stdin"),
            input=f"{codes[0]}\n{PASSWORD}\n",
        )
        assert done.exit_code == Exit.OK, done.output
        open_mailbox(house, "other", headless=True)
        assert mails(house.paths.volume("other")) == 2

    def test_without_its_volume_it_says_what_it_needs(self, run: Run, stick: Path) -> None:
        done = run("recover", NAME)
        assert error_of(done) == "profile-unknown" and "--volume" in done.stdout

    def test_a_wrong_code_leaves_nothing(self, run: Run, house: House, stick: Path) -> None:
        done = run(
            *("recover", NAME, "--volume", str(stick / "a.luks"), "--offline"),
            *("--profile", str(stick / "a.toml"), "--code-stdin", "--password-stdin"),
            input=f"{new_code()}\n{PASSWORD}\n",
        )
        assert error_of(done) == "recovery-code-wrong"
        assert not house.paths.data.exists() and house.records.find(NAME) is None

    def test_a_volume_that_never_held_mail_is_formatted_at_its_first_open(
        self, house: House, codes: list[str], tmp_path: Path, run: Run
    ) -> None:
        onboard(house, make_wish("old", hand_over=codes.append))
        done = run(
            *("recover", NAME, "--volume", str(house.paths.volume("old")), "--offline"),
            *("--address", "anna@kunde.test", "--imap", "imap.kunde.test"),
            *("--smtp", "smtp.kunde.test", "--code-stdin", "--password-stdin"),
            input=f"{codes[-1]}\n{PASSWORD}\n",
        )
        assert done.exit_code == Exit.OK, done.output
        assert house.paths.blank(NAME).exists()
        open_mailbox(house, NAME, headless=True)


def test_a_shredded_name_does_not_come_back_with_an_old_copy(
    run: Run, used: House, volume: Path, codes: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.luks"
    shutil.copy(volume, copy)
    shred(used, NAME)
    done = run(
        *("recover", NAME, "--volume", str(copy), "--offline", "--address", "anna@kunde.test"),
        *("--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test"),
        *("--code-stdin", "--password-stdin"),
        input=f"{codes[0]}\n{PASSWORD}\n",
    )
    assert error_of(done) in ("name-shredded", "profile-shredded")
    assert not volume.exists()


def test_one_that_is_here_takes_no_other_volume(
    run: Run, used: House, codes: list[str], tmp_path: Path
) -> None:
    done = run("recover", NAME, "--volume", str(tmp_path / "x"), "--code-stdin", input=codes[0])
    assert done.exit_code == Exit.USAGE and "is here already" in done.stdout


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(16)
        file.seek(at)
        file.write(bytes(each ^ 0xFF for each in old))


class TestHeaderBackup:
    @pytest.fixture
    def backup(self, used: House) -> Path:
        back_up(used, NAME, remove=False)
        return used.paths.header_backup(NAME)

    def test_it_is_on_record_and_for_its_owner_alone(self, used: House, backup: Path) -> None:
        assert backup.stat().st_mode & 0o777 == 0o600
        noted = recorded_backup(used.journal(NAME).read())
        assert noted == hashlib.sha256(backup.read_bytes()).hexdigest()

    @pytest.mark.parametrize("at", [0, 8, 104, 112, 208, 1024])
    def test_repair_puts_a_damaged_header_back(
        self, used: House, volume: Path, backup: Path, at: int
    ) -> None:
        before = volume.read_bytes()
        damage(volume, at)
        refusal(lambda: open_mailbox(used, NAME, headless=True), "volume-header-damaged")
        done = repair(used, NAME)[0]
        assert "put back" in done.summary and volume.read_bytes() == before
        open_mailbox(used, NAME, headless=True)
        assert mails(volume) == 2

    def test_without_one_nothing_is_written(self, used: House, volume: Path) -> None:
        damage(volume, 1024)
        before = volume.read_bytes()
        repair(used, NAME)
        refusal(lambda: open_mailbox(used, NAME, headless=True), "volume-header-damaged")
        assert volume.read_bytes() == before

    def test_one_that_was_changed_is_not_put_back(
        self, used: House, volume: Path, backup: Path
    ) -> None:
        damage(backup, 1024)
        damage(volume, 0)
        before = volume.read_bytes()
        refusal(lambda: repair(used, NAME), "header-backup-damaged")
        assert volume.read_bytes() == before

    def test_a_whole_header_is_left_alone(self, used: House, volume: Path, backup: Path) -> None:
        before = volume.read_bytes()
        assert repair(used, NAME)[0].facts["repaired"] is False
        used.vault.put(used.records.load(NAME).id, VOLUME_KEY, "of another volume")
        repair(used, NAME)
        assert volume.read_bytes() == before

    def test_it_is_renewed_when_keyslots_change(
        self, used: House, volume: Path, backup: Path, codes: list[str]
    ) -> None:
        renew_code(used, NAME, codes.append, replace=True)
        assert opens(backup, codes[1].encode()) and not opens(backup, codes[0].encode())
        lose(used)
        recover(used, NAME, means(codes[1]))
        key = used.vault.get(used.records.load(NAME).id, VOLUME_KEY) or ""
        assert opens(backup, key.encode())
        damage(volume, 112)
        repair(used, NAME)
        open_mailbox(used, NAME, headless=True)

    def test_without_a_record_the_key_must_vouch_for_it(
        self, used: House, volume: Path, backup: Path
    ) -> None:
        used.paths.journal(NAME).unlink()
        damage(volume, 0)
        repair(used, NAME)
        open_mailbox(used, NAME, headless=True)

    def test_it_can_be_destroyed_and_goes_with_the_volume(self, used: House, backup: Path) -> None:
        back_up(used, NAME, remove=True)
        assert not backup.exists() and recorded_backup(used.journal(NAME).read()) == ""
        back_up(used, NAME, remove=True)
        back_up(used, NAME, remove=False)
        shred(used, NAME)
        assert not backup.exists()

    def test_it_is_made_of_closed_mailboxes_whose_header_is_whole(
        self, used: House, volume: Path
    ) -> None:
        open_mailbox(used, NAME, headless=True)
        refusal(lambda: back_up(used, NAME, remove=False), "mailbox-open")
        close(used, NAME)
        damage(volume, 1024)
        refusal(lambda: back_up(used, NAME, remove=False), "volume-header-damaged")
        assert not used.paths.header_backup(NAME).exists()

    def test_by_the_command(self, run: Run, used: House) -> None:
        made = json.loads(run("header-backup", NAME).stdout)
        assert made["facts"]["digest"] and Path(made["facts"]["path"]).exists()
        gone = json.loads(run("header-backup", NAME, "--remove").stdout)
        assert gone["facts"]["path"] is None and not Path(made["facts"]["path"]).exists()


class TestDamage:
    @pytest.mark.parametrize("kept", [0, 100, 1024, PAYLOAD, PAYLOAD + 1, PAYLOAD + 3071])
    def test_a_volume_that_is_cut_off(self, used: House, volume: Path, kept: int) -> None:
        volume.write_bytes(volume.read_bytes()[:kept])
        before = volume.read_bytes()
        with pytest.raises(MailboxError) as refused:
            open_mailbox(used, NAME, headless=True)
        assert refused.value.code in ("volume-truncated", "volume-header-damaged")
        assert refused.value.exit_code == Exit.DAMAGED and "backup" in refused.value.resolution
        assert volume.read_bytes() == before and not used.machines.states()

    def test_the_key_of_another_volume(self, used: House, volume: Path) -> None:
        before = volume.read_bytes()
        used.vault.put(used.records.load(NAME).id, VOLUME_KEY, "of another volume")
        error = refusal(lambda: open_mailbox(used, NAME, headless=True), "keyring-item-wrong")
        assert "untouched" in error.details and "recover" in error.resolution
        assert volume.read_bytes() == before

    def test_a_damaged_keyslot_of_the_code_is_said_and_does_not_hinder(
        self, used: House, volume: Path, world: World, codes: list[str]
    ) -> None:
        damage(volume, 1024 + 512)
        open_mailbox(used, NAME, headless=True)
        assert any("recovery-code" in text for text in world.warned)
        close(used, NAME)
        renew_code(used, NAME, codes.append, replace=True)
        world.warned.clear()
        open_mailbox(used, NAME, headless=True)
        assert world.warned == [] or not any("Keyslot" in text for text in world.warned)

    def test_a_damaged_keyslot_of_the_key_is_mended_with_the_code(
        self, used: House, volume: Path, codes: list[str]
    ) -> None:
        damage(volume, 1024)
        error = refusal(lambda: open_mailbox(used, NAME, headless=True), "volume-header-damaged")
        assert "recover" in error.resolution
        recover(used, NAME, means(codes[0], password=never))
        open_mailbox(used, NAME, headless=True)
        assert mails(volume) == 2

    @pytest.mark.parametrize("content", [b"", b"=", b"\xff", b"version = 99", bytes(100)])
    def test_a_profile_edited_into_nonsense(
        self, used: House, volume: Path, codes: list[str], content: bytes
    ) -> None:
        before = volume.read_bytes()
        used.paths.profile(NAME).write_bytes(content)
        for action in (
            lambda: open_mailbox(used, NAME, headless=True),
            lambda: recover(used, NAME, means(codes[0])),
            lambda: renew_code(used, NAME, codes.append, replace=True),
            lambda: back_up(used, NAME, remove=False),
        ):
            with pytest.raises(InvalidInputError) as refused:
                action()
            assert refused.value.exit_code == Exit.USAGE
        assert volume.read_bytes() == before
        assert used.paths.profile(NAME).read_bytes() == content
