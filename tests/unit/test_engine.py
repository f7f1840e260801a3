"""The engine: an entry before and after each step, undone or left to be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.lifecycle.engine import Plan, Step, StoppedError, run
from sandbox.model.errors import Exit, MailboxError
from sandbox.state.journal import Journal
from tests.unit.fakes import World

PLAN = Plan("open", "a", (Step("one", "One", "r"), Step("two", "Two", "r")), {"image": "i"})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "a.jsonl")


def events(journal: Journal) -> list[str]:
    return [f"{entry.event} {entry.step}".strip() for entry in journal.read().entries]


def test_every_step_has_an_entry_on_both_sides(journal: Journal, world: World) -> None:
    seen: list[list[str]] = []

    def effect() -> dict[str, Any]:
        seen.append(events(journal))
        return {"fact": len(seen)}

    timings = run(PLAN, {"one": effect, "two": effect}, journal, world)
    assert seen == [["begin", "step one"], ["begin", "step one", "done one", "step two"]]
    assert events(journal)[-2:] == ["done two", "end"]
    assert [timing.step for timing in timings] == ["one", "two"]
    entries = journal.read().entries
    assert entries[0].facts == {"image": "i"} and entries[2].facts == {"fact": 1}
    assert entries[-1].facts == {"outcome": "done"}
    assert len({entry.run for entry in entries}) == 1
    assert world.said == ["One", "Two"]


def failing(error: BaseException) -> dict[str, Any]:
    def fail() -> None:
        raise error

    return {"one": lambda: None, "two": fail}


def test_what_fails_is_undone_as_a_whole(journal: Journal, world: World) -> None:
    undone: list[list[str]] = []
    with pytest.raises(MailboxError) as stopped:
        run(
            PLAN,
            failing(MailboxError("No.", code="some-code")),
            journal,
            world,
            undo=lambda: undone.append(events(journal)),
        )
    assert stopped.value.code == "some-code"
    assert undone == [["begin", "step one", "done one", "step two", "failed"]]
    *_, failed, end = journal.read().entries
    assert failed.facts == {"code": "some-code"} and end.facts == {"outcome": "undone"}
    assert journal.read().pending() is None


def test_without_an_undo_it_stays_pending(journal: Journal, world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        run(PLAN, failing(ZeroDivisionError()), journal, world)
    pending = journal.read().pending()
    assert pending is not None and pending.verb == "open"
    assert journal.read().entries[-1].facts == {"code": "ZeroDivisionError"}


@pytest.mark.parametrize("undone", [True, False])
def test_a_stop_by_the_user_is_a_sentence(journal: Journal, world: World, undone: bool) -> None:
    undo = (lambda: None) if undone else None
    with pytest.raises(StoppedError) as stopped:
        run(PLAN, failing(KeyboardInterrupt()), journal, world, undo=undo)
    assert stopped.value.exit_code == Exit.INTERRUPTED
    assert ("undone" in stopped.value.brief) == undone
    assert (journal.read().pending() is None) == undone


def test_an_undo_that_fails_is_tried_again_later(journal: Journal, world: World) -> None:
    def undo() -> None:
        raise MailboxError("The undo failed.", code="undo")

    with pytest.raises(MailboxError, match="The undo failed"):
        run(PLAN, failing(MailboxError("No.")), journal, world, undo=undo)
    assert journal.read().pending() is not None


def test_a_full_disk_does_not_keep_the_undo_away(
    journal: Journal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone: list[bool] = []

    def full(*_: object, **__: object) -> None:
        raise MailboxError("Full.", code="disk-full")

    def fill_the_disk() -> None:
        monkeypatch.setattr(journal, "append", full)
        raise MailboxError("Full.", code="disk-full")

    effects = {"one": lambda: None, "two": fill_the_disk}
    with pytest.raises(MailboxError, match="Full"):
        run(PLAN, effects, journal, world, undo=lambda: undone.append(True))
    assert undone == [True]
    assert Journal(journal._path).read().pending() is not None


def test_nothing_is_done_when_the_journal_cannot_be_written(tmp_path: Path, world: World) -> None:
    (tmp_path / "journal").touch()
    done: list[str] = []
    with pytest.raises(MailboxError) as refused:
        run(PLAN, {"one": lambda: done.append("one")}, Journal(tmp_path / "journal/a"), world)
    assert refused.value.code == "file-error" and done == []
