"""Suspended machines: they go on once, only where nothing has changed, and never in plain."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.retain import retain
from sandbox.lifecycle.shred import shred
from sandbox.lifecycle.suspend import suspend
from sandbox.lifecycle.switch import switch
from sandbox.model.errors import MailboxError
from sandbox.model.profile import Machine
from sandbox.model.secrets import MAIL_PASSWORD, STATE_KEY, VOLUME_KEY
from sandbox.model.suspended import Note, misfit, read_note, secrets_digest
from sandbox.state import files
from tests.unit.fakes import NAME, SETTINGS, World, mails, make_wish

FITS = {"profile": "p", "image": "i", "machine": "m", "qemu": "q", "libvirt": "l"}
ENDED = {"already": False, "clean": True, "warnings": []}
NOTE = Note(str(uuid.UUID(int=1)), 1000.0, "d", "s", FITS)
SUSPENDING = replace(SETTINGS, machine=Machine(2 * 1024**3, 2, on_close="suspend"))


@pytest.fixture
def opened(house: House) -> House:
    onboard(house, make_wish())
    open_mailbox(house, NAME, headless=True)
    return house


@pytest.fixture
def suspended(opened: House) -> House:
    suspend(opened, NAME)
    return opened


def kinds(world: World) -> set[str]:
    return {item.partition("/")[2] for item in world.state["vault"]}


def kept_files(house: House) -> list[str]:
    return sorted(path.name for path in house.paths.states.glob("*"))


def test_a_suspended_mailbox_leaves_only_ciphertext(suspended: House, world: World) -> None:
    state = world.state
    assert state["machines"] == {} and state["wardens"] == {} and state["served"] == {}
    assert kept_files(suspended) == [f"{NAME}.json", f"{NAME}.luks"]
    assert not suspended.paths.machine(NAME).exists()
    assert STATE_KEY in kinds(world)
    key = next(v for k, v in state["vault"].items() if k.endswith(STATE_KEY))
    assert key not in suspended.paths.saved_note(NAME).read_text()
    assert observe(suspended, NAME).state == "suspended"


def test_it_goes_on_with_its_volume_and_nothing_is_kept(suspended: House, world: World) -> None:
    had = mails(suspended.paths.volume(NAME))
    result = open_mailbox(suspended, NAME, headless=True)
    assert result.facts["resumed"] and "provision" not in result.facts["seconds"]
    (machine,) = world.state["machines"].values()
    assert machine["state"] == "open" and machine["volume"] == str(suspended.paths.volume(NAME))
    assert mails(suspended.paths.volume(NAME)) == had + 1
    assert kept_files(suspended) == [] and STATE_KEY not in kinds(world)
    assert open_mailbox(suspended, NAME, headless=True).facts["already"]


def test_what_was_kept_is_destroyed_before_it_goes_on(suspended: House, world: World) -> None:
    order: list[str] = []
    world.watch = order.append
    open_mailbox(suspended, NAME, headless=True)
    gone = order.index(f"after vault.delete {STATE_KEY}")
    assert order.index("after machines.restore") < gone < order.index("before machines.resume")


def test_it_can_be_suspended_again_and_again(suspended: House) -> None:
    for _ in range(3):
        assert open_mailbox(suspended, NAME, headless=True).facts["resumed"]
        assert not suspend(suspended, NAME).facts["already"]
        assert suspend(suspended, NAME).facts["already"]


def test_the_warden_of_a_resumed_machine_knows_that_it_is_up(
    suspended: House, world: World
) -> None:
    open_mailbox(suspended, NAME, headless=True)
    (warden,) = world.state["wardens"].values()
    assert warden["config"]["up"] and warden["config"]["held"]


def spoil_profile(house: House, world: World) -> None:
    profile = house.records.load(NAME)
    settings = replace(profile.settings, machine=Machine(3 * 1024**3, 2))
    house.records.save(replace(profile, settings=settings))


def spoil_password(house: House, world: World) -> None:
    house.vault.put(house.records.load(NAME).id, MAIL_PASSWORD, "another")


def spoil_keys(house: House, world: World) -> None:
    files.replace(house.paths.public_ring(NAME), b"another expiry")


def spoil_given(house: House, world: World) -> None:
    house.paths.given(NAME).write_text('{"profile": 5}')


def spoil_volume(house: House, world: World) -> None:
    with house.paths.volume(NAME).open("ab") as file:
        file.write(bytes(512))


def spoil_memory(house: House, world: World) -> None:
    with house.paths.saved(NAME).open("ab") as file:
        file.write(b"x")


def spoil_note(house: House, world: World) -> None:
    house.paths.saved_note(NAME).write_text("{")


def lose_key(house: House, world: World) -> None:
    house.vault.delete(house.records.load(NAME).id, STATE_KEY)


def lose_memory(house: House, world: World) -> None:
    house.paths.saved(NAME).unlink()


def lose_fuse(house: House, world: World) -> None:
    world.no_fuse = "there is no FUSE"


def grow_old(house: House, world: World) -> None:
    note = json.loads(house.paths.saved_note(NAME).read_text())
    note["time"] -= 8 * 24 * 3600
    house.paths.saved_note(NAME).write_text(json.dumps(note))


def break_restore(house: House, world: World) -> None:
    world.faults["machines.restore"] = MailboxError("No.", code="libvirt-error")


def break_waking(house: House, world: World) -> None:
    world.faults["warden.tell resume"] = MailboxError("Silent.", code="machine-silent")


@pytest.mark.parametrize(
    "spoil",
    [
        *(spoil_profile, spoil_password, spoil_keys, spoil_volume, spoil_memory, spoil_note),
        *(lose_key, lose_memory, lose_fuse, grow_old, break_restore, break_waking),
    ],
)
def test_what_does_not_fit_is_opened_afresh_and_nothing_is_lost(
    spoil: object, suspended: House, world: World
) -> None:
    had = mails(suspended.paths.volume(NAME))
    assert callable(spoil)
    spoil(suspended, world)
    result = open_mailbox(suspended, NAME, headless=True)
    assert not result.facts["resumed"] and "provision" in result.facts["seconds"]
    assert mails(suspended.paths.volume(NAME)) == had + 1
    assert kept_files(suspended) == [] and STATE_KEY not in kinds(world)
    if spoil is not lose_memory:
        assert any("afresh" in text for text in world.warned)
    assert suspended.journal(NAME).read().pending() is None


@pytest.mark.parametrize("spoil", [spoil_profile, spoil_password, spoil_keys, spoil_given])
def test_what_was_changed_while_it_was_open_is_not_hidden_by_a_suspend(
    spoil: object, opened: House, world: World
) -> None:
    assert callable(spoil)
    spoil(opened, world)
    suspend(opened, NAME)
    assert not open_mailbox(opened, NAME, headless=True).facts["resumed"]
    suspend(opened, NAME)
    assert open_mailbox(opened, NAME, headless=True).facts["resumed"]


@pytest.mark.parametrize("spoil", [spoil_profile, spoil_keys])
def test_an_open_one_says_that_it_was_changed(spoil: object, opened: House, world: World) -> None:
    assert not open_mailbox(opened, NAME, headless=True).facts["outdated"]
    assert callable(spoil)
    spoil(opened, world)
    assert open_mailbox(opened, NAME, headless=True).facts["outdated"]
    assert any("closed and opened again" in text for text in world.warned)
    close(opened, NAME)
    open_mailbox(opened, NAME, headless=True)
    assert not open_mailbox(opened, NAME, headless=True).facts["outdated"]


def test_a_machine_whose_memory_is_still_kept_never_goes_on(suspended: House, world: World) -> None:
    """As after a kill between its return and the destruction of its memory."""
    domain = suspended.domain(NAME)
    with world.change("test") as state:
        state["machines"][domain] = {"state": "paused", "volume": None}
    order: list[str] = []
    world.watch = order.append
    assert open_mailbox(suspended, NAME, headless=True).facts["resumed"]
    assert order.index("after machines.destroy") < order.index("before machines.resume")


def test_nothing_goes_on_before_image_and_memory_are_verified(
    suspended: House, world: World
) -> None:
    order: list[str] = []
    world.watch = order.append
    world.faults["images.verify"] = MailboxError("Changed.", code="image-damaged")
    with pytest.raises(MailboxError) as refused:
        open_mailbox(suspended, NAME, headless=True)
    assert refused.value.code == "image-damaged"
    assert "before machines.resume" not in order and world.state["machines"] == {}


class TestSuspend:
    def test_a_closed_one_is_refused(self, house: House) -> None:
        onboard(house, make_wish())
        with pytest.raises(MailboxError) as refused:
            suspend(house, NAME)
        assert refused.value.code == "not-open"

    def test_without_fuse_it_says_so_and_stays_open(self, opened: House, world: World) -> None:
        world.no_fuse = "there is no FUSE"
        with pytest.raises(MailboxError) as refused:
            suspend(opened, NAME)
        assert refused.value.code == "suspend-impossible" and "no FUSE" in refused.value.brief
        assert open_mailbox(opened, NAME, headless=True).facts["already"]

    @pytest.mark.parametrize(
        "fault", ["volumes.create_for_memory", "storage.serve_file", "warden.tell suspend-prepare"]
    )
    def test_what_fails_before_the_save_leaves_it_open(
        self, fault: str, opened: House, world: World
    ) -> None:
        world.faults[fault] = MailboxError("No.", code="broken")
        with pytest.raises(MailboxError) as refused:
            suspend(opened, NAME)
        assert refused.value.code == "broken"
        assert kept_files(opened) == [] and STATE_KEY not in kinds(world)
        assert open_mailbox(opened, NAME, headless=True).facts["already"]
        assert list(world.state["served"]) == [str(opened.paths.volume_socket(NAME))]

    def test_a_memory_that_cannot_be_saved_leaves_it_open(
        self, opened: House, world: World
    ) -> None:
        world.faults["machines.save"] = MailboxError("No space.", code="libvirt-error")
        with pytest.raises(MailboxError):
            suspend(opened, NAME)
        world.faults.clear()
        assert kept_files(opened) == [] and STATE_KEY not in kinds(world)
        (warden,) = world.state["wardens"].values()
        assert warden["state"] == "ready" and not warden["config"]["held"]
        assert open_mailbox(opened, NAME, headless=True).facts["already"]

    def test_where_it_cannot_be_reached_again_it_is_closed(
        self, opened: House, world: World
    ) -> None:
        world.faults["machines.save"] = MailboxError("No space.", code="libvirt-error")
        world.faults["wardens.start"] = MailboxError("No warden.", code="program-failed")
        with pytest.raises(MailboxError):
            suspend(opened, NAME)
        assert observe(opened, NAME).state == "closed" and kept_files(opened) == []

    def test_a_guest_that_cannot_is_told(self, opened: House, world: World) -> None:
        world.guest.error = ("not-open", "no client")
        with pytest.raises(MailboxError) as refused:
            suspend(opened, NAME)
        assert refused.value.code == "not-prepared" and "no client" in refused.value.details

    def test_without_its_memory_sealed_it_is_closed(self, opened: House, world: World) -> None:
        world.faults["storage.end"] = MailboxError("No.", code="broken")
        with pytest.raises(MailboxError):
            suspend(opened, NAME)
        world.faults.clear()
        close(opened, NAME)
        assert kept_files(opened) == [] and STATE_KEY not in kinds(world)
        assert not open_mailbox(opened, NAME, headless=True).facts["resumed"]


class TestClose:
    @pytest.fixture
    def wishing(self, house: House) -> House:
        onboard(house, make_wish(settings=SUSPENDING))
        open_mailbox(house, NAME, headless=True)
        return house

    def test_it_suspends_where_the_profile_says_so(self, wishing: House) -> None:
        result = close(wishing, NAME)
        assert result.facts["suspended"] and observe(wishing, NAME).state == "suspended"
        assert close(wishing, NAME).facts["already"]

    def test_without_fuse_it_shuts_down_and_says_so(self, wishing: House, world: World) -> None:
        world.no_fuse = "there is no FUSE"
        assert close(wishing, NAME).facts == ENDED
        assert any("no FUSE" in text and "shut down" in text for text in world.warned)
        assert kept_files(wishing) == []

    def test_shutdown_overrules_it(self, wishing: House) -> None:
        assert close(wishing, NAME, shutdown=True).facts == ENDED
        assert observe(wishing, NAME).state == "closed"

    def test_shutdown_discards_a_suspended_one(self, wishing: House, world: World) -> None:
        close(wishing, NAME)
        close(wishing, NAME, shutdown=True)
        assert kept_files(wishing) == [] and STATE_KEY not in kinds(world)
        assert close(wishing, NAME, shutdown=True).facts["already"]

    def test_by_default_it_shuts_down(self, opened: House) -> None:
        close(opened, NAME)
        assert observe(opened, NAME).state == "closed"


def test_shredding_takes_the_memory_and_its_key(suspended: House, world: World) -> None:
    shred(suspended, NAME)
    assert kept_files(suspended) == [] and world.state["vault"] == {}


def test_switching_suspends_those_who_wish_it_and_leaves_the_others(
    house: House, world: World
) -> None:
    onboard(house, make_wish("a", settings=SUSPENDING))
    onboard(house, make_wish("b"))
    onboard(house, make_wish("c"))
    for name in ("a", "b"):
        open_mailbox(house, name, headless=True)
    result = switch(house, "c", headless=True)
    assert result.facts["left"] == ["a"]
    assert [observe(house, name).state for name in "abc"] == ["suspended", "open", "open"]
    assert switch(house, "a", headless=True).facts["resumed"]


class TestNote:
    def test_it_reads_what_it_wrote(self) -> None:
        assert read_note(NOTE.write()) == NOTE

    @given(
        st.binary(max_size=60)
        | st.recursive(
            st.none() | st.integers() | st.text(max_size=4),
            lambda inner: st.dictionaries(st.sampled_from(["version", "fits", "time", "x"]), inner),
            max_leaves=6,
        ).map(lambda value: json.dumps(value).encode())
    )
    def test_anything_else_is_none(self, content: bytes) -> None:
        assert read_note(content) is None

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"image": "x", "machine": "x"}, "newer image"),
            ({"qemu": "x"}, "QEMU"),
            ({"cpu": "x"}, "processor"),
            ({"unheard": "x"}, "something"),
        ],
    )
    def test_each_difference_is_told(self, changes: dict[str, str], said: str) -> None:
        assert misfit(NOTE, FITS, 10, 7) is None
        assert said in str(misfit(NOTE, {**FITS, **changes}, 10, 7))

    def test_a_missing_trait_is_a_difference(self) -> None:
        assert misfit(NOTE, {k: v for k, v in FITS.items() if k != "qemu"}, 10, 7)

    def test_time_is_limited_both_ways(self) -> None:
        day = 24 * 3600.0
        assert misfit(NOTE, FITS, 7 * day, 7) is None
        assert "older than 7 days" in str(misfit(NOTE, FITS, 7 * day + 1, 7))
        assert "future" in str(misfit(NOTE, FITS, -1, 7))

    def test_secrets_are_bound_to_the_key(self) -> None:
        given = {VOLUME_KEY: "a"}
        assert secrets_digest(b"k", given) == secrets_digest(b"k", dict(given))
        assert secrets_digest(b"k", given) != secrets_digest(b"l", given)
        assert secrets_digest(b"k", given) != secrets_digest(b"k", {VOLUME_KEY: "b"})


def test_nothing_waits_for_the_wall_clock(
    suspended: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 6 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert open_mailbox(suspended, NAME, headless=True).facts["resumed"]


def test_the_note_names_no_secret(suspended: House, world: World) -> None:
    written = Path(suspended.paths.saved_note(NAME)).read_text()
    assert not any(secret in written for secret in world.state["vault"].values())


def test_a_mailbox_that_is_retained_keeps_no_memory(suspended: House, world: World) -> None:
    retain(suspended, NAME, date(2999, 1, 1), "tax law")
    assert kept_files(suspended) == [] and STATE_KEY not in kinds(world)
