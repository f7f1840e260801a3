"""The verbs on fakes: what they leave when all goes well, and when something does not."""

from __future__ import annotations

import io
import uuid
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import look_at, observe, observe_all
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.picture import save_screenshot
from sandbox.lifecycle.retain import retain
from sandbox.lifecycle.settle import find_name, repair
from sandbox.lifecycle.shred import shred
from sandbox.lifecycle.shredding import Order
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.machine import MachineState, domain_name
from sandbox.model.secrets import ITEMS, VOLUME_KEY
from sandbox.state import files
from sandbox.state.journal import Journal
from tests.unit.fake_luks import PAYLOAD
from tests.unit.fakes import (
    ACCOUNT,
    BERT,
    NAME,
    OWN,
    PASSWORD,
    World,
    luks_bytes,
    mails,
    make_house,
    make_wish,
    opens,
)

DOMAIN = domain_name(NAME)


@pytest.fixture
def onboarded(house: House) -> House:
    onboard(house, make_wish())
    return house


@pytest.fixture
def opened(onboarded: House) -> House:
    open_mailbox(onboarded, NAME, headless=True)
    return onboarded


def code_of(refused: pytest.ExceptionInfo[MailboxError]) -> str:
    assert refused.value.brief.endswith(".")
    return refused.value.code


def files_below(house: House) -> set[str]:
    folders = (house.paths.config, house.paths.data, house.paths.runtime)
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


def assert_nothing_made(house: House, world: World) -> None:
    assert files_below(house) == set()
    assert not house.paths.gnupg(NAME).exists()
    assert world.state["vault"] == {} and world.state["machines"] == {}


def assert_closed(house: House, world: World) -> None:
    state = world.state
    assert state["machines"] == {} and state["wardens"] == {} and state["served"] == {}
    assert not house.paths.machine(NAME).exists()
    assert house.journal(NAME).read().pending() is None


class TestOnboard:
    def test_makes_keys_volume_and_profile(self, house: House, world: World) -> None:
        result = onboard(house, make_wish())
        profile = house.records.load(NAME)
        assert result.facts["id"] == str(profile.id)
        assert profile.keys.fingerprint == OWN
        assert [each.fingerprint for each in profile.keys.correspondents] == [BERT]
        vault = world.state["vault"]
        assert set(vault) == {f"{profile.id}/{kind}" for kind in ITEMS}
        assert vault[f"{profile.id}/mail-password"] == PASSWORD
        assert opens(house.paths.volume(NAME), vault[f"{profile.id}/{VOLUME_KEY}"].encode())
        assert house.paths.blank(NAME).exists()
        assert house.journal(NAME).read().pending() is None

    def test_no_secret_rests_in_a_file(self, onboarded: House, world: World) -> None:
        secrets = [value.encode() for value in world.state["vault"].values()]
        folders = (onboarded.paths.config, onboarded.paths.state, onboarded.paths.volumes)
        for path in (each for folder in folders for each in folder.rglob("*") if each.is_file()):
            assert not any(secret in path.read_bytes() for secret in secrets), path

    def test_the_journal_names_neither_customer_nor_server(self, onboarded: House) -> None:
        text = onboarded.paths.journal(NAME).read_text()
        for word in ("kunde.test", "Anna", PASSWORD):
            assert word not in text

    def test_a_key_of_its_own_is_generated(self, house: House) -> None:
        onboard(house, make_wish(key=KeyChoice(generate=True), correspondents=()))
        assert house.records.load(NAME).keys.fingerprint == OWN

    def test_a_key_comes_from_a_file(self, house: House) -> None:
        choice = KeyChoice(file=f"secret {OWN} anna@kunde.test".encode())
        onboard(house, make_wish(key=choice))
        assert house.records.load(NAME).keys.fingerprint == OWN

    def test_no_key_at_all_is_a_choice(self, house: House, world: World) -> None:
        onboard(house, make_wish(key=KeyChoice(), correspondents=()))
        open_mailbox(house, NAME, headless=True)
        assert world.desired[0]["openpgp"] == {
            "custody": "guest",
            "agent": None,
            "key": None,
            "retired": [],
            "forgotten": [],
            "correspondents": [],
        }

    def test_a_key_for_another_address_is_said(self, house: House, world: World) -> None:
        world.keys[OWN] = ("other@kunde.test", "")
        onboard(house, make_wish())
        assert any("does not name anna@kunde.test" in text for text in world.warned)

    def test_the_passphrase_is_asked_for(self, house: House, world: World) -> None:
        world.keys[OWN] = ("anna@kunde.test", "old")
        asked: list[str] = []
        choice = KeyChoice(fingerprint=OWN, ask=lambda text: asked.append(text) or "old")
        onboard(house, make_wish(key=choice))
        assert asked == [OWN]

    def test_colours_are_not_given_twice(self, house: House) -> None:
        colours = set()
        for name in ("a", "b", "c"):
            onboard(house, make_wish(name))
            colours.add(house.records.load(name).colour)
        assert len(colours) == 3

    def test_servers_are_not_asked_when_told_so(self, house: House, world: World) -> None:
        world.faults["servers.check"] = MailboxError("Unreachable.")
        assert onboard(house, make_wish(check_servers=False)).facts["servers_checked"] is False

    @pytest.mark.parametrize("name", [NAME, "CLIENTA"])
    def test_an_existing_name_is_refused_whatever_its_case(
        self, onboarded: House, world: World, name: str
    ) -> None:
        before = world.state
        with pytest.raises(MailboxError) as refused:
            onboard(onboarded, make_wish(name))
        assert code_of(refused) == "profile-exists" and refused.value.exit_code == Exit.EXISTS
        assert world.state == before

    def test_the_name_of_a_shredded_one_needs_a_word(self, onboarded: House) -> None:
        old = onboarded.records.load(NAME)
        shred(onboarded, NAME)
        with pytest.raises(MailboxError) as refused:
            onboard(onboarded, make_wish("clienta"))
        assert code_of(refused) == "name-shredded"
        onboard(onboarded, make_wish(reuse_name=True))
        assert onboarded.records.load(NAME).id != old.id

    @pytest.mark.parametrize("kind", ["volume", "gnupg"])
    def test_what_is_in_the_way_is_not_touched(self, house: House, world: World, kind: str) -> None:
        path: Path = getattr(house.paths, kind)(NAME)
        files.replace(path, b"precious")
        with pytest.raises(MailboxError) as refused:
            onboard(house, make_wish())
        assert code_of(refused) == "volume-exists"
        assert path.read_bytes() == b"precious" and world.state["vault"] == {}

    def test_a_wrong_password_is_found_before_anything_is_written(
        self, house: House, world: World
    ) -> None:
        with pytest.raises(MailboxError) as refused:
            onboard(house, make_wish(password="wrong"))
        assert code_of(refused) == "login-refused"
        assert_nothing_made(house, world)
        assert not house.paths.journal(NAME).exists()

    def test_a_keyring_that_is_none_is_found_first(self, house: House, world: World) -> None:
        world.faults["vault.check"] = MailboxError("None.", code="keyring-missing")
        with pytest.raises(MailboxError) as refused:
            onboard(house, make_wish())
        assert code_of(refused) == "keyring-missing"
        assert "before servers.check" not in world.labels
        assert_nothing_made(house, world)

    @pytest.mark.parametrize(
        "effect",
        [
            "vault.put volume-key",
            "vault.put mail-password",
            "vault.put openpgp-passphrase",
            "keyring.create",
            "keyring.add_own",
            "keyring.add_correspondents",
            "volumes.create",
        ],
    )
    @pytest.mark.parametrize(
        "error", [MailboxError("Failed.", code="x"), KeyboardInterrupt(), OSError(5, "I/O")]
    )
    def test_whatever_fails_everything_is_undone(
        self, house: House, world: World, effect: str, error: BaseException
    ) -> None:
        world.faults[effect] = error
        with pytest.raises((MailboxError, OSError)):
            onboard(house, make_wish())
        assert_nothing_made(house, world)
        assert house.journal(NAME).read().pending() is None
        world.faults.clear()
        onboard(make_house(world), make_wish())

    @pytest.mark.parametrize("choice", [KeyChoice(fingerprint="C" * 40), KeyChoice(file=b"junk")])
    def test_a_key_that_is_none_undoes_everything(
        self, house: House, world: World, choice: KeyChoice
    ) -> None:
        with pytest.raises(MailboxError) as refused:
            onboard(house, make_wish(key=choice))
        assert refused.value.exit_code == Exit.KEYS
        assert_nothing_made(house, world)

    def test_what_was_left_under_another_case_is_removed_first(
        self, house: House, world: World
    ) -> None:
        house.journal(NAME).append(
            "onboard", "begin", "1", facts={"profile_id": str(uuid.UUID(int=7))}
        )
        files.replace(house.paths.volume(NAME), b"half")
        onboard(house, make_wish("clienta"))
        assert not house.paths.volume(NAME).exists()
        assert house.journal(NAME).read().pending() is None
        assert house.records.names() == ["clienta"]


class TestOpen:
    def test_the_machine_gets_all_it_needs_once(self, onboarded: House, world: World) -> None:
        result = open_mailbox(onboarded, NAME, headless=True)
        assert result.facts["already"] is False and result.facts["shown"] is False
        state = world.state
        assert state["machines"][DOMAIN]["volume"] == str(onboarded.paths.volume(NAME))
        (desired,) = world.desired
        assert desired["volume"] == {"blank": True}
        assert desired["account"]["incoming"]["password"] == PASSWORD
        assert not onboarded.paths.blank(NAME).exists()
        assert mails(onboarded.paths.volume(NAME)) == 1

    def test_the_warden_reaches_the_profiles_servers_and_no_others(
        self, opened: House, world: World
    ) -> None:
        (warden,) = world.state["wardens"].values()
        targets = {(each["name"], each["port"]) for each in warden["config"]["forwards"]}
        assert targets == {("imap.kunde.test", 993), ("smtp.kunde.test", 465)}
        assert PASSWORD not in str(warden["config"])

    def test_open_again_is_show_again(self, opened: House, world: World) -> None:
        world.labels.clear()
        result = open_mailbox(opened, NAME.upper(), headless=False)
        assert result.facts == {"already": True, "shown": True, "outdated": False}
        assert not any("start" in label or "provision" in label for label in world.labels)

    def test_a_blank_volume_is_said_to_be_blank_only_once(
        self, opened: House, world: World
    ) -> None:
        close(opened, NAME)
        open_mailbox(opened, NAME, headless=True)
        assert [desired["volume"]["blank"] for desired in world.desired] == [True, False]
        assert mails(opened.paths.volume(NAME)) == 2

    def test_a_volume_that_lost_its_file_system_is_not_formatted(
        self, opened: House, world: World
    ) -> None:
        close(opened, NAME)
        volume = opened.paths.volume(NAME)
        volume.write_bytes(volume.read_bytes()[:PAYLOAD] + bytes(3072))
        before = volume.read_bytes()
        with pytest.raises(MailboxError) as refused:
            open_mailbox(opened, NAME, headless=True)
        assert code_of(refused) == "volume-damaged" and refused.value.exit_code == Exit.DAMAGED
        assert volume.read_bytes() == before
        assert_closed(opened, world)

    def test_warnings_of_the_guest_are_passed_on(self, onboarded: House, world: World) -> None:
        world.guest.warnings = (("keys", "one key is old"),)
        result = open_mailbox(onboarded, NAME, headless=True)
        assert result.facts["warnings"] == [{"code": "keys", "message": "one key is old"}]

    def test_no_acceleration_is_said(self, opened: House, world: World) -> None:
        assert any("hardware acceleration" in text for text in world.warned)

    @pytest.mark.parametrize("effect", ["images.newest", "images.verify"])
    def test_no_machine_starts_without_a_good_image(
        self, onboarded: House, world: World, effect: str
    ) -> None:
        world.faults[effect] = MailboxError("Damaged.", code="image-damaged")
        with pytest.raises(MailboxError, match="Damaged"):
            open_mailbox(onboarded, NAME, headless=True)
        assert "before machines.start" not in world.labels
        assert_closed(onboarded, world)

    @pytest.mark.parametrize(
        ("damage", "code"),
        [
            (lambda path: path.unlink(), "volume-missing"),
            (lambda path: path.write_bytes(bytes(4096)), "volume-header-damaged"),
            (lambda path: path.write_bytes(luks_bytes(b"k")[:1024]), "volume-truncated"),
        ],
    )
    def test_no_machine_starts_for_a_damaged_volume(
        self, onboarded: House, world: World, damage: Any, code: str
    ) -> None:
        damage(onboarded.paths.volume(NAME))
        with pytest.raises(MailboxError) as refused:
            open_mailbox(onboarded, NAME, headless=True)
        assert code_of(refused) == code and refused.value.exit_code == Exit.DAMAGED
        assert "before machines.start" not in world.labels
        assert_closed(onboarded, world)

    @pytest.mark.parametrize("kind", ITEMS)
    def test_a_secret_that_is_missing_undoes_everything(
        self, onboarded: House, world: World, kind: str
    ) -> None:
        onboarded.vault.delete(onboarded.records.load(NAME).id, kind)
        with pytest.raises(MailboxError) as refused:
            open_mailbox(onboarded, NAME, headless=True)
        assert code_of(refused) == "keyring-item-missing"
        assert kind in refused.value.brief
        assert_closed(onboarded, world)

    def test_a_key_that_does_not_fit_undoes_everything(
        self, onboarded: House, world: World
    ) -> None:
        onboarded.vault.put(onboarded.records.load(NAME).id, VOLUME_KEY, "other")
        with pytest.raises(MailboxError) as refused:
            open_mailbox(onboarded, NAME, headless=True)
        assert code_of(refused) == "keyring-item-wrong"
        assert_closed(onboarded, world)

    @pytest.mark.parametrize("manner", ["silent", "dies"])
    def test_a_machine_that_does_not_answer_is_ended_and_quoted(
        self, onboarded: House, world: World, manner: str
    ) -> None:
        setattr(world.guest, manner, True)
        with pytest.raises(MailboxError) as refused:
            open_mailbox(onboarded, NAME, headless=True)
        assert refused.value.exit_code == Exit.MACHINE
        assert "last words" in refused.value.details
        assert "\x1b" not in refused.value.details
        assert_closed(onboarded, world)

    @pytest.mark.parametrize(
        ("code", "exit_code"),
        [
            ("volume-damaged", Exit.DAMAGED),
            ("volume-missing", Exit.MACHINE),
            ("key-import", Exit.KEYS),
            ("never-heard-of", Exit.MACHINE),
        ],
    )
    def test_what_the_guest_says_went_wrong_is_said(
        self, onboarded: House, world: World, code: str, exit_code: Exit
    ) -> None:
        world.guest.error = (code, "because")
        with pytest.raises(MailboxError) as refused:
            open_mailbox(onboarded, NAME, headless=True)
        assert code_of(refused) == code and refused.value.exit_code == exit_code
        assert refused.value.details == "because"
        assert_closed(onboarded, world)

    @pytest.mark.parametrize(
        "effect",
        [
            "machines.start",
            "wardens.start",
            "vault.get mail-password",
            "keyring.export",
            "warden.wait_ready",
            "storage.serve_disk",
            "machines.attach_volume",
            "warden.provision",
        ],
    )
    @pytest.mark.parametrize("error", [MailboxError("Failed.", code="x"), KeyboardInterrupt()])
    def test_whatever_fails_everything_is_undone(
        self, onboarded: House, world: World, effect: str, error: BaseException
    ) -> None:
        world.faults[effect] = error
        with pytest.raises(MailboxError):
            open_mailbox(onboarded, NAME, headless=True)
        assert_closed(onboarded, world)
        world.faults.clear()
        assert open_mailbox(make_house(world), NAME, headless=True).facts["already"] is False

    def test_a_broken_profile_is_not_opened(self, onboarded: House, world: World) -> None:
        onboarded.paths.profile(NAME).write_text("name = 5")
        with pytest.raises(InvalidInputError):
            open_mailbox(onboarded, NAME, headless=True)
        assert_closed(onboarded, world)

    def test_a_machine_whose_warden_died_gets_a_new_one(self, opened: House, world: World) -> None:
        opened.wardens.kill(opened.paths.control_socket(NAME))
        world.labels.clear()
        assert open_mailbox(opened, NAME, headless=True).facts["already"] is False
        assert "before machines.start" not in world.labels
        assert len(world.state["wardens"]) == 1

    def test_a_machine_whose_storage_daemon_died_is_closed_and_starts_afresh(
        self, opened: House, world: World
    ) -> None:
        with world.change("the daemon is killed") as state:
            state["served"].clear()
        world.labels.clear()
        assert open_mailbox(opened, NAME, headless=True).facts["already"] is False
        assert "before machines.start" in world.labels
        assert len(world.state["served"]) == 1 and len(world.state["machines"]) == 1

    def test_a_machine_powered_off_from_inside_opens_again(
        self, opened: House, world: World
    ) -> None:
        with world.change("power off") as state:
            from tests.unit.fakes import end_machine

            end_machine(state, DOMAIN)
        assert open_mailbox(opened, NAME, headless=True).facts["already"] is False
        assert world.state["machines"][DOMAIN]["volume"]

    def test_an_unknown_name_is_refused(self, house: House) -> None:
        with pytest.raises(MailboxError) as refused:
            open_mailbox(house, "nobody", headless=True)
        assert code_of(refused) == "profile-unknown"
        assert not house.paths.journal("nobody").exists()

    @pytest.mark.parametrize("name", ["", "../x", "a/b", "a" * 64])
    def test_what_is_no_name_is_refused(self, house: House, name: str) -> None:
        with pytest.raises(InvalidInputError):
            find_name(house, name)


class TestClose:
    def test_nothing_is_left(self, opened: House, world: World) -> None:
        result = close(opened, NAME)
        assert result.facts == {"already": False, "clean": True, "warnings": []}
        assert_closed(opened, world)

    def test_a_closed_one_stays_closed(self, onboarded: House) -> None:
        entries = len(onboarded.journal(NAME).read().entries)
        assert close(onboarded, NAME).facts == {"already": True}
        assert len(onboarded.journal(NAME).read().entries) == entries

    def test_a_machine_that_hangs_is_ended_hard_and_said(self, opened: House, world: World) -> None:
        world.guest.hangs = True
        result = close(opened, NAME)
        assert result.facts["clean"] is False and "ended hard" in result.summary
        assert_closed(opened, world)

    @pytest.mark.parametrize(
        ("code", "meaning"), [("client-killed", "typed last"), ("volume-busy", "next open")]
    )
    def test_what_the_guest_warns_of_is_said(
        self, opened: House, world: World, code: str, meaning: str
    ) -> None:
        world.guest.last_words = ((code, "the guest's own words"),)
        result = close(opened, NAME)
        assert result.facts["clean"] is False and meaning in result.summary
        assert result.facts["warnings"] == [{"code": code, "message": "the guest's own words"}]
        assert "The machine says: the guest's own words" in world.warned
        assert_closed(opened, world)

    def test_a_warden_that_hangs_is_killed(self, opened: House, world: World) -> None:
        world.faults["warden.stop"] = MailboxError("No answer.")
        close(opened, NAME)
        assert "after wardens.kill" in world.labels
        assert_closed(opened, world)

    def test_a_machine_without_a_warden_is_ended(self, opened: House, world: World) -> None:
        opened.wardens.kill(opened.paths.control_socket(NAME))
        close(opened, NAME)
        assert_closed(opened, world)

    def test_a_machine_that_does_not_end_is_not_called_closed(
        self, opened: House, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.guest.hangs = True
        monkeypatch.setattr(opened.machines, "destroy", lambda _name: None)
        with pytest.raises(MailboxError) as refused:
            close(opened, NAME)
        assert code_of(refused) == "not-closed"

    def test_a_broken_profile_is_closed_all_the_same(self, opened: House, world: World) -> None:
        opened.paths.profile(NAME).write_text("name = 5")
        close(opened, NAME)
        assert_closed(opened, world)


class TestShred:
    @pytest.mark.parametrize("running", [True, False])
    def test_nothing_is_left_but_its_tombstone(
        self, onboarded: House, world: World, running: bool
    ) -> None:
        if running:
            open_mailbox(onboarded, NAME, headless=True)
        identity = onboarded.records.load(NAME).id
        result = shred(onboarded, NAME)
        assert result.facts["profile_id"] == str(identity)
        assert_nothing_made(onboarded, world)
        assert_closed(onboarded, world)
        stone = onboarded.records.tombstone(NAME)
        assert stone is not None and stone.profile_id == str(identity)

    def test_keys_go_before_data(self, onboarded: House, world: World) -> None:
        world.labels.clear()
        shred(onboarded, NAME)
        order = [
            world.labels.index(f"after {effect}")
            for effect in (
                "vault.delete volume-key",
                "volumes.erase_header",
                "keyring.destroy",
                "volumes.remove",
            )
        ]
        assert order == sorted(order)

    def test_the_address_is_in_no_file_afterwards(self, opened: House, world: World) -> None:
        opened.paths.profile(NAME).with_name(f".{NAME}.ab12cd_x.edit").write_text("anna@kunde.test")
        shred(opened, NAME)
        for path in (each for each in world.root.rglob("*") if each.is_file()):
            assert b"kunde" not in path.read_bytes(), path

    def test_a_second_time_says_when_it_was(self, onboarded: House) -> None:
        shred(onboarded, NAME)
        with pytest.raises(MailboxError) as refused:
            shred(onboarded, NAME)
        assert code_of(refused) == "profile-shredded"

    def test_others_are_not_touched(self, onboarded: House, world: World) -> None:
        onboard(onboarded, make_wish("other"))
        other = onboarded.records.load("other")
        shred(onboarded, NAME)
        assert set(world.state["vault"]) == {f"{other.id}/{kind}" for kind in ITEMS}
        open_mailbox(onboarded, "other", headless=True)

    @pytest.mark.parametrize("pending", [True, False])
    def test_a_broken_profile_is_shredded_too(
        self, opened: House, world: World, pending: bool
    ) -> None:
        if pending:
            opened.journal(NAME).append("open", "begin", "1", facts={"image": "x"})
        opened.paths.profile(NAME).write_text("name = 5")
        shred(opened, NAME)
        assert_nothing_made(opened, world)

    def test_it_is_not_called_shredded_when_a_key_stays(
        self, onboarded: House, world: World
    ) -> None:
        world.faults["vault.delete volume-key"] = MailboxError("Locked.", code="keyring-locked")
        with pytest.raises(MailboxError, match="Locked"):
            shred(onboarded, NAME)
        assert observe(onboarded, NAME).state == "unfinished shred"
        with pytest.raises(MailboxError, match="Locked"):
            open_mailbox(onboarded, NAME, headless=True)
        world.faults.clear()
        shred(make_house(world), NAME)
        assert_nothing_made(onboarded, world)

    @pytest.mark.parametrize("missing", ["volume", "keys", "secrets"])
    def test_what_is_gone_already_is_no_hindrance(
        self, onboarded: House, world: World, missing: str
    ) -> None:
        identity = onboarded.records.load(NAME).id
        if missing == "volume":
            onboarded.volumes.remove(onboarded.paths.volume(NAME))
        elif missing == "keys":
            onboarded.profile_keyring(NAME).destroy()
        else:
            for kind in ITEMS:
                onboarded.vault.delete(identity, kind)
        shred(onboarded, NAME)
        assert_nothing_made(onboarded, world)

    def test_a_second_shredding_of_a_name_leaves_the_first_on_record(
        self, onboarded: House, world: World
    ) -> None:
        first = onboarded.records.load(NAME).id
        shred(onboarded, NAME, Order("contract ended", "Anna"))
        onboard(onboarded, make_wish(reuse_name=True))
        second = onboarded.records.load(NAME).id
        shred(onboarded, NAME, Order("a mistake"))
        stones = onboarded.records.tombstones.all(NAME)
        assert [(each.profile_id, each.because) for each in stones] == [
            (str(first), "contract ended"),
            (str(second), "a mistake"),
        ]
        with pytest.raises(MailboxError, match="a mistake"):
            onboard(onboarded, make_wish())

    def test_files_that_come_back_do_not_revive_it(
        self, onboarded: House, world: World, tmp_path: Path
    ) -> None:
        paths = onboarded.paths
        backup = {
            path: path.read_bytes()
            for folder in (paths.config, paths.data)
            for path in folder.rglob("*")
            if path.is_file()
        }
        shred(onboarded, NAME, Order("contract ended"))
        for path, content in backup.items():
            files.replace(path, content)
        assert observe(onboarded, NAME).state == "shredded"
        for verb in (
            lambda: open_mailbox(onboarded, NAME, headless=True),
            lambda: onboarded.records.load(NAME),
        ):
            with pytest.raises(MailboxError, match="contract ended") as refused:
                verb()
            assert code_of(refused) == "profile-shredded"
        shred(onboarded, NAME)
        assert_nothing_made(onboarded, world)

    def test_what_libvirt_and_the_viewer_noted_goes(self, opened: House, world: World) -> None:
        home = world.root / "home"
        log = home / "cache/libvirt/qemu/log" / f"{DOMAIN}.log"
        files.replace(log, b"x")
        picture = world.root / "picture.png"
        save_screenshot(opened, NAME, picture, lambda ppm: ppm)
        result = shred(opened, NAME)
        assert not log.exists() and not picture.exists()
        assert result.facts["left"] == []

    def test_it_looks_and_says_what_it_found(self, opened: House, world: World) -> None:
        note = opened.paths.config / "templates" / "mine.toml"
        files.replace(note, b"# for anna@kunde.test")
        result = shred(opened, NAME)
        assert result.facts["left"] == [{"path": str(note), "kind": "address"}]
        assert "still named" in result.summary and any(str(note) in said for said in world.warned)
        done = opened.journal(NAME).read().last("shred", "done", step="look")
        assert done and done.facts and "address" in done.facts["identifiers"]

    def test_its_own_records_are_no_finding(self, opened: House, world: World) -> None:
        shred(opened, NAME)
        onboard(opened, make_wish(reuse_name=True))
        assert shred(opened, NAME).facts["left"] == []

    def test_the_old_key_is_tried_before_and_after(self, opened: House) -> None:
        shred(opened, NAME)
        history = opened.journal(NAME).read()
        facts = {e.step: e.facts or {} for e in history.entries if e.verb == "shred" and e.facts}
        assert facts["keyring"]["opened_before"] is True
        assert facts["header"]["opened_after"] is False and facts["header"]["erased"] is True

    def test_a_volume_that_stays_readable_is_not_called_shredded(
        self, opened: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opened.volumes, "erase_header", lambda _path: True)
        with pytest.raises(MailboxError) as refused:
            shred(opened, NAME)
        assert code_of(refused) == "erase-failed"
        assert opened.paths.volume(NAME).exists()


class TestRetain:
    DAY = date(2999, 1, 1)

    def test_it_is_closed_and_keeps_everything(self, opened: House, world: World) -> None:
        had = opened.paths.volume(NAME).read_bytes()
        retain(opened, NAME, self.DAY, "tax law")
        assert_closed(opened, world)
        assert opened.paths.volume(NAME).read_bytes() == had and len(world.state["vault"]) == 3
        assert observe(opened, NAME).state == "retained"

    @pytest.mark.parametrize("days", [-1, 0, 1])
    def test_it_is_shredded_from_its_day_on(self, onboarded: House, days: int) -> None:
        retain(onboarded, NAME, self.DAY, "tax law")
        day = self.DAY + timedelta(days=days)
        if days >= 0:
            shred(onboarded, NAME, day=day)
            assert not onboarded.paths.retention(NAME).exists()
            return
        with pytest.raises(MailboxError, match="tax law") as refused:
            shred(onboarded, NAME, day=day)
        assert code_of(refused) == "retained" and onboarded.paths.volume(NAME).exists()

    def test_a_longer_one_replaces_a_shorter_and_not_the_other_way(self, onboarded: House) -> None:
        retain(onboarded, NAME, self.DAY, "tax law")
        with pytest.raises(MailboxError) as refused:
            retain(onboarded, NAME, self.DAY - timedelta(days=1), "less")
        assert code_of(refused) == "retained"
        retain(onboarded, NAME, self.DAY + timedelta(days=1), "more")
        seen = observe(onboarded, NAME).retention
        assert seen and (seen.because, seen.until) == ("more", self.DAY + timedelta(days=1))

    def test_an_override_without_a_retention_is_not_on_record(self, onboarded: House) -> None:
        shred(onboarded, NAME, Order(override="never mind"))
        assert "never mind" not in onboarded.paths.journal(NAME).read_text()

    def test_a_note_that_cannot_be_read_keeps_it_closed(self, onboarded: House) -> None:
        retain(onboarded, NAME, self.DAY, "tax law")
        onboarded.paths.retention(NAME).write_text("{}")
        for verb in (
            lambda: open_mailbox(onboarded, NAME, headless=True),
            lambda: shred(onboarded, NAME),
        ):
            with pytest.raises(MailboxError) as refused:
                verb()
            assert code_of(refused) == "retention-damaged"
        retain(onboarded, NAME, self.DAY, "tax law")
        assert observe(onboarded, NAME).state == "retained"

    def test_a_new_mailbox_of_the_name_is_not_kept(self, onboarded: House) -> None:
        retain(onboarded, NAME, self.DAY, "tax law")
        note = onboarded.paths.retention(NAME).read_bytes()
        shred(onboarded, NAME, Order(override="a court"))
        onboard(onboarded, make_wish(reuse_name=True))
        files.replace(onboarded.paths.retention(NAME), note)
        open_mailbox(onboarded, NAME, headless=True)


class TestObserve:
    def test_each_state_has_its_word(self, onboarded: House, world: World) -> None:
        assert observe(onboarded, NAME).state == "closed"
        open_mailbox(onboarded, NAME, headless=True)
        seen = observe(onboarded, NAME)
        assert (seen.state, seen.warden, seen.plugged) == ("open", True, True)
        close(onboarded, NAME)
        onboarded.journal(NAME).append("open", "begin", "9")
        assert observe(onboarded, NAME).state == "unfinished open"
        onboarded.paths.profile(NAME).write_text("name = 5")
        assert observe(onboarded, NAME).state == "broken"

    def test_nothing_broken_hides_the_others(self, onboarded: House) -> None:
        onboarded.paths.profile("broken").write_text("=")
        onboarded.paths.profile("folder").mkdir()
        onboard(onboarded, make_wish("volume"))
        onboarded.volumes.remove(onboarded.paths.volume("volume"))
        onboarded.paths.volume("volume").mkdir()
        onboard(onboarded, make_wish("journal"))
        onboarded.paths.journal("journal").unlink()
        onboarded.paths.journal("journal").mkdir()
        seen = {each.name: each.state for each in observe_all(onboarded)}
        assert seen.pop(NAME) == "closed"
        assert seen == dict.fromkeys(("broken", "folder", "volume", "journal"), "broken")

    def test_the_status_without_libvirt_says_what_is_known(
        self, onboarded: House, world: World
    ) -> None:
        world.faults["machines.state"] = MailboxError("libvirt is away.", resolution="Start it.")
        seen = look_at(onboarded, NAME)
        assert seen.state == "unknown" and seen.profile is not None and seen.volume is not None
        assert world.warned == ["libvirt is away. Start it."]

    def test_one_that_cannot_be_looked_at_hides_no_other(
        self, onboarded: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        onboard(onboarded, make_wish("other"))
        look = onboarded.volumes.look

        def fails(path: Path) -> object:
            if path.stem == NAME:
                raise PermissionError(13, "Permission denied", str(path))
            return look(path)

        monkeypatch.setattr(onboarded.volumes, "look", fails)
        assert [seen.state for seen in observe_all(onboarded)] == ["broken", "closed"]

    def test_many_need_one_question_to_libvirt_and_one_look_each(
        self, onboarded: House, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(3):
            onboard(onboarded, make_wish(f"more{number}"))
        asked: list[str] = []
        states = onboarded.machines.states
        monkeypatch.setattr(onboarded.machines, "states", lambda: asked.append("all") or states())
        recent = Journal.recent
        monkeypatch.setattr(Journal, "recent", lambda self: asked.append("one") or recent(self))
        nobody = replace(
            onboarded,
            **dict.fromkeys(("vault", "wardens", "storage", "custodians", "remains"), object()),
        )
        assert len(observe_all(nobody)) == 4
        assert asked == ["all", *["one"] * 4]

    def test_without_libvirt_the_state_is_unknown(self, onboarded: House, world: World) -> None:
        world.faults["machines.states"] = MailboxError("libvirt does not answer.")
        (seen,) = observe_all(onboarded)
        assert seen.machine is MachineState.UNKNOWN
        assert "libvirt does not answer." in world.warned


class TestRepair:
    def test_nothing_unfinished_is_nothing_done(self, onboarded: House) -> None:
        assert repair(onboarded, None) == []
        (result,) = repair(onboarded, NAME)
        assert result.facts == {"repaired": False}

    def test_an_open_machine_is_left_alone(self, opened: House, world: World) -> None:
        repair(opened, None)
        assert DOMAIN in world.state["machines"]

    def test_every_unfinished_one_is_settled(self, opened: House, world: World) -> None:
        onboard(opened, make_wish("other"))
        opened.journal(NAME).append("open", "begin", "1")
        opened.journal("other").append(
            "shred", "begin", "2", facts={"profile_id": str(opened.records.load("other").id)}
        )
        assert [(result.name, result.facts["repaired"]) for result in repair(opened, None)] == [
            (NAME, True),
            ("other", True),
        ]
        assert_closed(opened, world)
        assert opened.records.names() == [NAME]

    def test_an_unfinished_onboarding_is_found_whatever_its_case(self, house: House) -> None:
        house.journal(NAME).append(
            "onboard", "begin", "1", facts={"profile_id": str(uuid.UUID(int=7))}
        )
        (result,) = repair(house, NAME.lower())
        assert result.name == NAME and result.facts["repaired"]


def test_commands_run_in_the_machine_through_its_warden(opened: House) -> None:
    out = io.BytesIO()
    warden = opened.wardens.find(opened.paths.control_socket(NAME))
    assert warden.run(["id"], user="root", stdout=out, stderr=out) == 0
    assert out.getvalue() == b"root: id\n"


def test_two_mailboxes_are_open_at_once(house: House, world: World) -> None:
    for name in ("a", "b"):
        onboard(house, make_wish(name, account=replace(ACCOUNT, address=f"{name}@kunde.test")))
        open_mailbox(house, name, headless=True)
    close(house, "a")
    assert list(world.state["machines"]) == [domain_name("b")]
    assert len(world.state["wardens"]) == 1
