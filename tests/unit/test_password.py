"""`password`: tried, stored, handed over; no machine goes on with an old one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox.lifecycle import given, own_keys, preview
from sandbox.lifecycle.house import House
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.password import Needs, change, plan_password
from sandbox.lifecycle.suspend import suspend
from sandbox.model.account import opened_by_own
from sandbox.model.custody import Custody, Where
from sandbox.model.dav import Collection, Password
from sandbox.model.endpoints import Endpoint
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.secrets import DAV_PASSWORD, MAIL_PASSWORD, STATE_KEY
from tests.unit.fakes import ACCOUNT, DAV_WORD, NAME, OWN, PASSWORD, SETTINGS, World, make_wish

NEW = "the-next-s3cret"
NEW_DAV = "the-next-s3cret-for-calendars"
WORK = "https://dav.kunde.test/anna/work/"


@pytest.fixture
def onboarded(house: House, world: World) -> House:
    """A mailbox whose password the provider has just changed."""
    onboard(house, make_wish())
    world.passwords[Password.MAIL] = NEW
    return house


@pytest.fixture
def opened(onboarded: House) -> House:
    open_mailbox(onboarded, NAME, headless=True)
    return onboarded


@pytest.fixture
def with_calendar(house: House) -> House:
    account = opened_by_own(replace(ACCOUNT, calendars=(Collection(WORK),)))
    onboard(house, make_wish(account=account, dav_password=DAV_WORD))
    return house


def kept(house: House, kind: str = MAIL_PASSWORD) -> str | None:
    return house.vault.get(house.records.load(NAME).id, kind)


def told(world: World) -> list[str]:
    return [machine["password"] for machine in world.state["machines"].values()]


def test_the_plan_has_only_what_there_is_need_for() -> None:
    def steps(needs: Needs) -> list[str]:
        return [step.id for step in plan_password(NAME, needs).steps]

    assert steps(Needs(())) == steps(Needs((), suspended=True)) == []
    assert steps(Needs((MAIL_PASSWORD,))) == ["secret"]
    assert steps(Needs((MAIL_PASSWORD,), suspended=True)) == ["secret", "discard"]
    assert steps(Needs((MAIL_PASSWORD,), usable=True)) == ["secret", "hand"]
    assert steps(Needs((), usable=True)) == ["hand"]


def test_a_closed_mailbox_opens_with_it(onboarded: House, world: World) -> None:
    done = change(onboarded, NAME, {MAIL_PASSWORD: NEW}, check=True)
    assert done.facts["changed"] == [MAIL_PASSWORD] and done.facts["servers_checked"]
    assert not done.facts["open"] and not done.facts["handed"]
    open_mailbox(onboarded, NAME, headless=True)
    assert told(world) == [NEW]


def test_what_the_servers_refuse_is_not_stored(opened: House, world: World) -> None:
    with pytest.raises(MailboxError) as refused:
        change(opened, NAME, {MAIL_PASSWORD: "a typing error"}, check=True)
    assert refused.value.code == "login-refused"
    assert kept(opened) == PASSWORD and told(world) == [PASSWORD]
    assert not given.has_old_secret(opened, NAME)


def test_offline_asks_no_server(onboarded: House, world: World) -> None:
    world.labels.clear()
    done = change(onboarded, NAME, {MAIL_PASSWORD: "whatever"}, check=False)
    assert kept(onboarded) == "whatever" and not done.facts["servers_checked"]
    assert not [label for label in world.labels if "servers" in label]


def test_an_open_machine_is_told_at_once(opened: House, world: World) -> None:
    done = change(opened, NAME, {MAIL_PASSWORD: NEW}, check=True)
    assert done.facts["handed"] and told(world) == [NEW]
    assert open_mailbox(opened, NAME, headless=True).facts["already"]
    suspend(opened, NAME)
    assert open_mailbox(opened, NAME, headless=True).facts["resumed"]
    assert told(world) == [NEW]


def test_the_same_password_changes_nothing(opened: House, world: World) -> None:
    provisioned = len(world.desired)
    done = change(opened, NAME, {MAIL_PASSWORD: PASSWORD}, check=False)
    assert done.facts["changed"] == [] and "already" in done.summary
    assert len(world.desired) == provisioned
    assert opened.journal(NAME).read().last("password", "begin") is None


class TestAMachineThatDidNotTakeIt:
    @pytest.fixture
    def outdated(self, opened: House, world: World) -> House:
        world.faults["warden.provision"] = MailboxError("The channel broke.", code="channel-lost")
        done = change(opened, NAME, {MAIL_PASSWORD: NEW}, check=True)
        assert done.facts["open"] and not done.facts["handed"]
        assert "mailbox open" in done.summary
        world.faults.clear()
        assert kept(opened) == NEW and told(world) == [PASSWORD]
        assert opened.journal(NAME).read().pending() is None
        return opened

    def test_is_told_at_the_next_open(self, outdated: House, world: World) -> None:
        plan = preview.opening(outdated, NAME)
        assert "provision" in [step.id for step in plan.steps]
        result = open_mailbox(outdated, NAME, headless=True)
        assert not result.facts["already"] and "start" not in result.facts["seconds"]
        assert told(world) == [NEW]
        assert open_mailbox(outdated, NAME, headless=True).facts["already"]

    def test_is_told_when_the_password_is_said_again(self, outdated: House, world: World) -> None:
        assert change(outdated, NAME, {MAIL_PASSWORD: NEW}, check=True).facts["handed"]
        assert told(world) == [NEW]

    def test_does_not_go_on_after_a_suspend(self, outdated: House, world: World) -> None:
        suspend(outdated, NAME)
        result = open_mailbox(outdated, NAME, headless=True)
        assert not result.facts["resumed"] and told(world) == [NEW]
        assert any("password" in text and "afresh" in text for text in world.warned)

    def test_is_started_anew_where_its_warden_knows_other_servers(
        self, outdated: House, world: World
    ) -> None:
        profile = outdated.records.load(NAME)
        account = replace(profile.account, imap=Endpoint("imap2.kunde.test", 993))
        outdated.records.save(replace(profile, account=account))
        result = open_mailbox(outdated, NAME, headless=True)
        assert "start" in result.facts["seconds"] and told(world) == [NEW]


def test_a_machine_is_not_sent_servers_that_its_warden_does_not_carry(
    opened: House, world: World
) -> None:
    profile, provisioned = opened.records.load(NAME), len(world.desired)
    account = replace(profile.account, imap=Endpoint("imap2.kunde.test", 993))
    opened.records.save(replace(profile, account=account))
    done = change(opened, NAME, {MAIL_PASSWORD: NEW}, check=True)
    assert not done.facts["handed"] and len(world.desired) == provisioned
    assert any("other servers" in text for text in world.warned)


def test_the_custody_of_the_key_is_as_at_an_open(house: House, world: World) -> None:
    onboard(house, make_wish(settings=replace(SETTINGS, custody=Custody(Where.HOST))))
    open_mailbox(house, NAME, headless=True)
    own_keys.rotate(house, NAME, own_keys.Rotation())
    assert change(house, NAME, {MAIL_PASSWORD: NEW}, check=False).facts["handed"]
    (custodian,) = world.state["custodians"].values()
    assert custodian["fingerprint"] == house.records.load(NAME).keys.fingerprint != OWN
    assert world.desired[-1]["openpgp"]["key"]["fingerprint"] == custodian["fingerprint"]


class TestSuspended:
    @pytest.fixture
    def suspended(self, opened: House) -> House:
        suspend(opened, NAME)
        return opened

    def test_its_memory_is_destroyed_with_its_key(self, suspended: House, world: World) -> None:
        done = change(suspended, NAME, {MAIL_PASSWORD: NEW}, check=True)
        assert done.facts["discarded"] and "afresh" in done.summary
        assert kept(suspended, STATE_KEY) is None
        assert not suspended.paths.saved(NAME).exists()
        assert observe(suspended, NAME).state == "closed"
        assert not open_mailbox(suspended, NAME, headless=True).facts["resumed"]
        assert told(world) == [NEW]

    def test_the_same_password_keeps_it(self, suspended: House) -> None:
        done = change(suspended, NAME, {MAIL_PASSWORD: PASSWORD}, check=False)
        assert not done.facts["discarded"]
        assert open_mailbox(suspended, NAME, headless=True).facts["resumed"]

    def test_a_refused_one_keeps_it(self, suspended: House) -> None:
        with pytest.raises(MailboxError):
            change(suspended, NAME, {MAIL_PASSWORD: "a typing error"}, check=True)
        assert open_mailbox(suspended, NAME, headless=True).facts["resumed"]


class TestCalendars:
    def test_only_what_was_given_is_tried_and_changed(
        self, with_calendar: House, world: World
    ) -> None:
        # The mail's was changed, too, and nobody has said so yet: that is another question.
        world.passwords = {Password.MAIL: "unknown", Password.OWN: NEW_DAV}
        done = change(with_calendar, NAME, {DAV_PASSWORD: NEW_DAV}, check=True)
        assert done.facts["changed"] == [DAV_PASSWORD] and done.facts["server_check"] is None
        assert kept(with_calendar, DAV_PASSWORD) == NEW_DAV and kept(with_calendar) == PASSWORD

    def test_a_refused_one_is_not_stored(self, with_calendar: House) -> None:
        with pytest.raises(MailboxError) as refused:
            change(with_calendar, NAME, {DAV_PASSWORD: "a typing error"}, check=True)
        assert refused.value.code == "login-refused"
        assert kept(with_calendar, DAV_PASSWORD) == DAV_WORD

    def test_both_are_tried_and_changed_together(self, with_calendar: House, world: World) -> None:
        world.passwords = {Password.MAIL: NEW, Password.OWN: NEW_DAV}
        words = {MAIL_PASSWORD: NEW, DAV_PASSWORD: NEW_DAV}
        done = change(with_calendar, NAME, words, check=True)
        assert done.facts["changed"] == [MAIL_PASSWORD, DAV_PASSWORD]

    def test_where_nothing_has_its_own_there_is_none_to_change(self, onboarded: House) -> None:
        with pytest.raises(InvalidInputError):
            change(onboarded, NAME, {DAV_PASSWORD: NEW_DAV}, check=False)
        assert kept(onboarded, DAV_PASSWORD) is None


@pytest.mark.parametrize(
    "label", [f"vault.put {DAV_PASSWORD}", "warden.provision"], ids=lambda label: label.split()[0]
)
def test_ctrl_c_leaves_the_old_ones(label: str, with_calendar: House, world: World) -> None:
    """Also where one of two was stored already, or the machine is just being told."""
    open_mailbox(with_calendar, NAME, headless=True)
    _fail_once(world, label)
    words = {MAIL_PASSWORD: NEW, DAV_PASSWORD: NEW_DAV}
    with pytest.raises(MailboxError) as stopped:
        change(with_calendar, NAME, words, check=False)
    assert stopped.value.code == "interrupted"
    assert kept(with_calendar) == PASSWORD and kept(with_calendar, DAV_PASSWORD) == DAV_WORD
    assert with_calendar.journal(NAME).read().pending() is None
    open_mailbox(with_calendar, NAME, headless=True)
    assert told(world) == [PASSWORD]


def _fail_once(world: World, label: str) -> None:
    """What puts the old secret back goes through the same door, and passes."""
    world.faults[label] = KeyboardInterrupt()
    seen: list[str] = []

    def watch(at: str) -> None:
        if at == f"before {label}":
            seen.append(at)
            if len(seen) > 1:
                world.faults.pop(label, None)

    world.watch = watch
