"""What benchmarks make of their samples: goals met or missed, the page that is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import endurance, report, write
from benchmarks.goals import BY_KEY, Finding, Measured, Table
from benchmarks.samples import Sample


def sample(side: str, kind: str, **seconds: float) -> Sample:
    return Sample(side, kind, 1, {name.replace("_", " "): each for name, each in seconds.items()})


SAMPLES = [
    sample("stock", "start", inbox_synchronised=50.0, close=10.0, window=49.0),
    sample("mailbox", "warm open", command_begins=1.0, window=14.0, inbox_synchronised=20.0),
    sample("mailbox", "suspended", memory_read_back=2.0, inbox_synchronised=5.0, close=1.0),
]


def test_a_goal_is_met_from_the_right_side() -> None:
    most, least = BY_KEY["open-warm"], BY_KEY["channel-up"]
    assert most.met(0.35) and not most.met(0.36)
    assert least.met(100) and not least.met(99.9)


def test_ratios_have_their_goals_and_name_what_takes_longest() -> None:
    figures = {each.key: each for each in report.figures(SAMPLES)}
    assert figures["open-warm"].value == pytest.approx(0.4)
    assert not figures["open-warm"].met
    assert 'to "window" 13.0 s' in figures["open-warm"].why
    assert figures["close-suspend"].value == pytest.approx(0.1)
    assert "open-booted" not in figures, "it was not measured"


def test_what_is_expected_with_kvm_shortens_the_machines_share_only() -> None:
    expected = report.tables(SAMPLES, slower=10)[1]
    by_title = {row[0]: row[1:] for row in expected.rows}
    suspended = by_title["mailbox, open of a suspended one (close: suspend)"]
    assert suspended == ("2.0", "3.0", "2.3", "0.46")  # 2 + 3 / 10; stock: 50 / 10


def test_the_page_is_written_between_its_markers_and_again(tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "found.json"
    page.write_text(f"before\n\n{write.BEGIN}\nold\n{write.END}\n\nafter\n")
    table = Table("Modes", ("mode", "MB/s"), (("a|b", "5"),))
    figures = [Measured("open-suspended", 0.2, why="Reading the memory."), Measured("help", 0.1)]
    Finding("open", {"cores": "2"}, figures, [table]).write(file)
    assert write.main([str(page), str(file)]) == 0
    first = page.read_text()
    assert write.main([str(page), str(file)]) == 0
    assert page.read_text() == first
    assert first.startswith("before\n") and first.endswith("after\n")
    assert "old" not in first
    assert "| cores | 2 |" in first
    assert "**missed**" in first and "Reading the memory." in first
    assert r"| a\|b | 5 |" in first


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "found.json"
    page.write_text("nothing\n")
    file.write_text(json.dumps({"benchmarks": []}))
    with pytest.raises(ValueError):
        write.replace_section(page.read_text(), "x")
    assert page.read_text() == "nothing\n"


def test_the_endurance_report_counts_failures_by_kind() -> None:
    rounds = [
        endurance.Round("go on", 1, {"suspend": 9.0}),
        endurance.Round("go on", 2, {"suspend": 11.0}, failure="it did not go on"),
    ]
    told = endurance.report(rounds)
    assert "go on: 1 of 2 without a failure" in told
    assert "suspend: 10.0 (9.0 to 11.0)" in told
    assert "round 2: it did not go on" in told
