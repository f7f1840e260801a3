"""The journal: chained, torn at most at its end, and clear about what is unfinished."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.state import files
from sandbox.state import journal as journal_module
from sandbox.state.journal import START, Journal, digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "a.jsonl"


def write(path: Path, *entries: str) -> Journal:
    """Entries as `verb event run`, such as `open begin 1`."""
    journal = Journal(path)
    for entry in entries:
        verb, event, run = entry.split()
        journal.append(verb, event, run)
    return journal


def pending(path: Path, *entries: str) -> tuple[str, str] | None:
    found = write(path, *entries).read().pending()
    return (found.verb, found.run) if found else None


def test_entries_are_read_back_in_order(path: Path) -> None:
    journal = Journal(path)
    journal.append("open", "begin", "r1", facts={"image": "abc"})
    journal.append("open", "step", "r1", "start")
    history = journal.read()
    assert [(e.verb, e.event, e.run, e.step) for e in history.entries] == [
        ("open", "begin", "r1", ""),
        ("open", "step", "r1", "start"),
    ]
    assert history.entries[0].facts == {"image": "abc"}
    assert history.broken_at is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_an_absent_journal_is_empty(path: Path) -> None:
    history = Journal(path).read()
    assert history.entries == () and history.pending() is None and history.broken_at is None


def test_each_line_carries_the_digest_of_the_one_before(path: Path) -> None:
    write(path, "open begin 1", "open end 1", "close begin 2")
    lines = path.read_bytes().splitlines()
    links = [json.loads(line)["previous"] for line in lines]
    assert links == [START, digest(lines[0]), digest(lines[1])]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_forged_line_is_found(path: Path, number: int) -> None:
    journal = write(path, "onboard begin 1", "onboard end 1", "open begin 2", "open end 2")
    lines = path.read_bytes().splitlines()
    lines[number - 1] = lines[number - 1].replace(b'"time": "2', b'"time": "1')
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert journal.read().broken_at == number + 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_line_taken_out_is_found(path: Path, number: int) -> None:
    journal = write(path, "onboard begin 1", "onboard end 1", "open begin 2", "open end 2")
    lines = path.read_bytes().splitlines()
    del lines[number]
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert journal.read().broken_at == number + 1


def test_lines_that_changed_places_are_found(path: Path) -> None:
    journal = write(path, "onboard begin 1", "onboard end 1", "open begin 2")
    first, second, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, third, second]) + b"\n")
    assert journal.read().broken_at == 2


@given(cut=st.integers(1, 400))
@settings(max_examples=30)
def test_a_line_torn_by_a_power_cut_is_no_forgery(tmp_path_factory: object, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.jsonl"  # type: ignore[attr-defined]
    journal = write(path, "onboard begin 1", "onboard end 1")
    whole = path.read_bytes()
    journal.append("open", "begin", "2", facts={"note": "über"})
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    history = journal.read()
    assert history.broken_at is None
    assert [entry.verb for entry in history.entries][:2] == ["onboard", "onboard"]
    journal.append("close", "begin", "3")
    history = journal.read()
    assert history.broken_at is None
    assert history.entries[-1].verb == "close"


def test_what_a_torn_line_began_did_not_begin(path: Path) -> None:
    journal = write(path, "onboard begin 1", "onboard end 1", "open begin 2")
    path.write_bytes(path.read_bytes()[:-20])
    assert journal.read().pending() is None


def test_nonsense_is_no_entry(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'[]\n"x"\n\xff\xfe\n{"facts": 5}\n')
    history = Journal(path).read()
    assert [entry.facts for entry in history.entries] == [None]
    assert history.broken_at is not None


def test_a_verb_that_began_is_pending_until_its_own_end(path: Path) -> None:
    assert pending(path, "open begin 1", "open failed 1") == ("open", "1")
    assert pending(path, "open end 0") == ("open", "1")
    assert pending(path, "open end 1") is None


def test_a_close_clears_the_open_that_was_killed(path: Path) -> None:
    assert pending(path, "open begin 1", "close begin 2") == ("close", "2")
    assert pending(path, "close end 2") is None


def test_a_close_does_not_clear_an_onboarding(path: Path) -> None:
    assert pending(path, "onboard begin 1", "close begin 2", "close end 2") == ("onboard", "1")


def test_what_destroys_goes_before_what_undoes(path: Path) -> None:
    begun = ("open begin 1", "close begin 2", "onboard begin 3", "shred begin 4")
    assert pending(path, *begun) == ("shred", "4")


def test_nothing_is_pending_after_a_shredding(path: Path) -> None:
    assert pending(path, "onboard begin 1", "open begin 2", "shred begin 3", "shred end 3") is None


def test_a_verb_begun_again_replaces_its_earlier_try(path: Path) -> None:
    assert pending(path, "shred begin 1", "shred begin 2") == ("shred", "2")
    assert pending(path, "shred end 2") is None


def test_the_newest_entry_counts(path: Path) -> None:
    history = write(path, "open begin 1", "open end 1", "open begin 2", "open end 2").read()
    last = history.last("open")
    assert last is not None and last.run == "2"
    assert history.last("shred") is None


def test_the_journal_is_on_the_disk_before_append_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: synced.append(path.read_bytes()))
    path.parent.mkdir()
    write(path, "open begin 1")
    assert synced and synced[0] == path.read_bytes()


VERBS = st.sampled_from(["open", "close", "suspend", "onboard", "retain", "keys add", "shred"])


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(st.tuples(VERBS, st.sampled_from(["whole", "killed", "undone"])), max_size=25))
def test_the_newest_entries_tell_what_all_tell(
    runs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = Journal(tmp_path_factory.mktemp("j") / "a.jsonl")
    with mock.patch.object(journal_module, "_TAIL", 300):
        compare(journal, runs)


def compare(journal: Journal, runs: list[tuple[str, str]]) -> None:
    for number, (verb, way) in enumerate(runs):
        journal.append(verb, "begin", str(number), facts={"image": f"i{number}"})
        journal.append(verb, "step", str(number), "start")
        if way != "killed":
            outcome = "done" if way == "whole" else "undone"
            journal.append(verb, "end", str(number), facts={"outcome": outcome})
        all_of_it, newest = journal.read(), journal.recent()
        assert all_of_it.broken_at is None
        assert newest.pending() == all_of_it.pending()
        assert newest.pending("suspend") == all_of_it.pending("suspend")
        for wanted in (("open", "begin", ""), ("open", "end", "done")):
            assert newest.last(*wanted) == all_of_it.last(*wanted)


def test_of_a_long_journal_only_the_end_is_read(path: Path) -> None:
    journal = write(path, *(f"open {each} {n}" for n in range(300) for each in ("begin", "step")))
    for run in ("x", "y"):
        journal.append("open", "begin", run)
        journal.append("open", "end", run, facts={"outcome": "done"})
    for _ in range(30):
        journal.append("keys add", "begin", "k")
        journal.append("keys add", "end", "k")
    assert len(journal.recent().entries) < len(journal.read().entries) / 2
    newest = journal.recent().last("open", outcome="done")
    assert newest and newest == journal.read().last("open", outcome="done")


def test_a_torn_line_is_no_end_of_the_newest_entries(path: Path) -> None:
    journal = write(path, *(f"close {event} {n}" for n in range(99) for event in ("begin", "end")))
    journal.append("open", "begin", "r")
    with path.open("ab") as file:
        file.write(b'{"event": "end", "idle": true, "prev')
    assert (begun := journal.recent().pending()) and begun.run == "r"
    journal.append("open", "end", "r", facts={"outcome": "done"})
    assert journal.recent().pending() is None and journal.read().broken_at is None
