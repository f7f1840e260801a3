"""Open mailboxes are put away before a sleep: the settings, and who guards when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sandbox.host.probes.finding import Level
from sandbox.host.probes.sleep import SleepFacts, judge_sleep
from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.sleep import guard, open_names, slowest
from sandbox.model.config import AtSleep, Config
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.state import lock
from sandbox.state.config import load_config
from tests.unit.fakes import NAME, World, make_house, make_wish


class Told:
    """A computer that says what it is told to say, and then that its bus is gone."""

    def __init__(self, *news: bool | None) -> None:
        self._news = list(news)
        self.held = False
        self.did: list[str] = []

    def hold(self) -> None:
        self.held = True
        self.did.append("hold")

    def release(self) -> None:
        self.held = False
        self.did.append("release")

    def wait(self, timeout: float) -> bool | None:
        if not self._news:
            raise MailboxError("The bus is gone.")
        return self._news.pop(0)


@pytest.fixture
def opened(house: House) -> House:
    onboard(house, make_wish())
    onboard(house, make_wish("closed"))
    open_mailbox(house, NAME, headless=True)
    return house


def test_an_open_mailbox_is_put_away_before_the_lock_goes(opened: House, world: World) -> None:
    told = Told(None, True)

    def put_away(names: Sequence[str]) -> None:
        assert list(names) == [NAME] and told.held
        close(make_house(world), NAME)

    guard(opened, told, put_away)
    assert not told.held and open_names(opened) == []


def test_what_could_not_be_put_away_is_tried_before_the_next_sleep(opened: House) -> None:
    told, tries = Told(True, False, True), list[Sequence[str]]()
    with pytest.raises(MailboxError):
        guard(opened, told, tries.append)
    assert [list(names) for names in tries] == [[NAME], [NAME]]
    assert told.did == ["hold", "release", "hold", "release", "release"]


def test_nobody_guards_where_nothing_is_open(house: House) -> None:
    onboard(house, make_wish())
    told = Told()
    guard(house, told, lambda _names: pytest.fail("nothing is open"))
    assert not told.held


def test_whoever_opens_a_mailbox_has_its_sleep_guarded(opened: House, world: World) -> None:
    assert world.said.count("Guarding the sleep") == 1
    open_mailbox(opened, NAME, headless=True)
    assert world.said.count("Guarding the sleep") == 2


def test_only_one_guards(tmp_path: Path) -> None:
    with lock.attempt(tmp_path / "a") as first, lock.attempt(tmp_path / "a") as second:
        assert (first, second) == (True, False)
    with lock.attempt(tmp_path / "a") as third:
        assert third


def test_how_long_it_took_is_read_from_the_journals(opened: House) -> None:
    assert slowest(opened.paths, "close") is None
    close(opened, NAME)
    took = slowest(opened.paths, "close")
    assert took is not None and 0 <= took < 60
    assert slowest(opened.paths, "suspend") is None


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (SleepFacts("suspend", delay_s=5.0), Level.OK, "5 s at the most"),
        (SleepFacts("suspend", delay_s=30.0, took_s=11.4), Level.OK, "up to 11 s"),
        (SleepFacts("suspend", delay_s=5.0, took_s=11.4), Level.WARNING, "too short"),
        (SleepFacts("close"), Level.WARNING, "logind does not answer"),
        (SleepFacts("leave", delay_s=5.0), Level.WARNING, "stay open"),
        (SleepFacts("", "sleep: is not a table"), Level.PROBLEM, "sleep: is not a table"),
    ],
)
def test_the_doctor_says_whether_it_will_work(facts: SleepFacts, level: Level, said: str) -> None:
    verdict = judge_sleep(facts)
    assert verdict.level is level and said in verdict.detail
    assert (verdict.remedy != "") is (level is not Level.OK)
    assert "InhibitDelayMaxSec=23" in verdict.remedy or "short" not in verdict.detail


class TestSettings:
    def test_without_a_file_they_are_as_usual(self, house: House) -> None:
        assert load_config(house.paths) == Config(AtSleep.SUSPEND, warm_in_background=True)

    def test_all_of_them(self, house: House) -> None:
        text = '[sleep]\nopen_mailboxes = "leave"\n[images]\nwarm_in_background = false\n'
        write(house, text)
        assert load_config(house.paths) == Config(AtSleep.LEAVE, warm_in_background=False)

    def test_every_mistake_is_named(self, house: House) -> None:
        write(house, '[sleep]\nopen_mailboxes = "die"\n[images]\nwarm = 1\n[other]\n')
        with pytest.raises(InvalidInputError) as raised:
            load_config(house.paths)
        said = raised.value.details
        assert "sleep.open_mailboxes: 'die' is not suspend, close or leave" in said
        assert "images.warm: is not known here" in said and "other: is not known" in said

    def test_a_mistake_stops_an_open_before_anything_is_started(
        self, house: House, world: World
    ) -> None:
        onboard(house, make_wish())
        write(house, "[sleep")
        with pytest.raises(InvalidInputError):
            open_mailbox(house, NAME, headless=True)
        assert world.state["machines"] == {}


def write(house: House, text: str) -> None:
    house.paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    house.paths.config_file.write_text(text)
